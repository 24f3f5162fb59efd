//! Pictures of influence maps and directions and plots of layers, as PNG, and planes of labels out of PNG.
//!
//! Pixels of the image become squares large enough to be seen. A map is drawn as coloured squares, each with a dot of the image's own
//! colour in its middle: the map keeps the colours of its bar, and the image stays visible under it. Colours go from dark to light
//! (viridis) or from blue over white to orange, so that they are told apart by colour-blind people and in black and white.

mod bars;
mod canvas;
mod colours;
mod error;
mod font;
mod labels;
mod panels;
pub mod statistics;

pub use bars::{Bar, Series, bars};
pub use error::Error;
pub use labels::{Labels, read_labels};
pub use panels::{Layer, Scale, picture};
