//! Output for people: pictures of maps, layers, curves and images as vector graphics (and PNG made
//! from them), statistics, self-contained HTML pages; and planes of labels read from PNG.
//!
//! Pixels of an image are enlarged to visible squares. A map is drawn as coloured squares, each
//! with a dot of the image's own colour in its centre: the map keeps the colours of its colour bar,
//! and the image remains visible. Colours go from dark to light (viridis) or from blue over white
//! to orange; both can be read with colour blindness, the first also in black and white.

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
pub use panels::{Colours, MapLayer, Sharing, picture};
pub use points::HoverPoint;
pub use scatter::{Dot, Scatter};
pub use sheet::{SheetTile, sheet, thumbnail};
pub use svg::{Picture, escaped};
