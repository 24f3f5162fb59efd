//! What a person sees of a run: pictures of maps, layers, curves and images as vector graphics (and
//! PNG made of them), statistics, and pages that hold everything; and planes of labels out of PNG.
//!
//! Pixels of the image become squares large enough to be seen. A map is drawn as coloured squares,
//! each with a dot of the image's own colour in its middle: the map keeps the colours of its bar, and
//! the image stays visible under it. Colours go from dark to light (viridis) or from blue over white
//! to orange, so that they are told apart by colour-blind people and in black and white.

mod axes;
mod bars;
mod colours;
mod curves;
mod error;
mod labels;
mod manhattan;
mod page;
mod panels;
mod points;
mod scale;
mod scatter;
mod sheet;
pub mod statistics;
mod svg;

pub use bars::{Bar, Series, bars};
pub use curves::{Curve, curves};
pub use error::Error;
pub use labels::{Labels, read_labels};
pub use manhattan::{Manhattan, Skyline, manhattan};
pub use page::{Page, PageCell};
pub use panels::{Colours, Layer, Sharing, picture};
pub use points::Point;
pub use scatter::{Dot, Scatter};
pub use sheet::{Tile, sheet, thumbnail};
pub use svg::{Picture, escaped};
