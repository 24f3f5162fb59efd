//! Drawings as SVG, and conversion of SVG to PNG with the embedded font.
//!
//! Every picture is drawn once, as vectors. As a file it has a white background; in a page, lines
//! and text take the page's colour, light or dark (`currentColor`). Lengths are in pixels of the
//! drawing.

use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use crate::colours::Colour;
use crate::error::Error;

/// The font of every picture; `font/make.py` makes it.
static FONT: &[u8] = include_bytes!("../font/DejaVuSans-latin.ttf");
/// Its name, with the fallbacks for browsers that do not have it.
const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";
/// Mean width of a letter relative to the font size. DejaVu Sans is a wide font. If this is too
/// small, texts run into each other; if it is too large, legends take more lines than they need.
const LETTER: f64 = 0.61;
/// Dots of a PNG per pixel of the drawing; with 2, text of 11 pixels is readable on any screen.
const DENSITY: f32 = 2.0;

/// The fonts, loaded once per process.
static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(FONT.to_vec());
    fonts.set_sans_serif_family("DejaVu Sans");
    Arc::new(fonts)
});

/// A finished drawing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    svg: String,
    /// Width in pixels.
    width: u32,
}

impl Picture {
    /// The SVG for a page: without background, in the colour of the surrounding text.
    #[must_use]
    pub fn inline(&self) -> &str {
        &self.svg
    }

    /// Its width in pixels.
    pub(crate) fn width(&self) -> f64 {
        f64::from(self.width)
    }

    /// The SVG as a file: black on white.
    #[must_use]
    pub fn svg(&self) -> String {
        let paper = r##"<rect width="100%" height="100%" fill="#ffffff"/>"##;
        let end = self.svg.find('>').map_or(0, |at| at + 1);
        let (head, body) = self.svg.split_at(end);
        format!("{} color=\"#1b1b1b\">{paper}{body}", head.trim_end_matches('>'))
    }

    /// Renders a PNG file with two dots per pixel.
    ///
    /// # Errors
    /// [`Error::Drawing`] if it is too large.
    pub fn png(&self) -> Result<Vec<u8>, Error> {
        let options = Options { fontdb: Arc::clone(&FONTS), ..Options::default() };
        let fail = |why: String| Error::Drawing(why);
        let tree = Tree::from_str(&self.svg(), &options).map_err(|error| fail(error.to_string()))?;
        let [width, height] =
            [tree.size().width(), tree.size().height()].map(|size| (size * DENSITY).ceil() as u32);
        let mut dots = Pixmap::new(width, height)
            .ok_or_else(|| fail(format!("{width} x {height} dots are too many")))?;
        resvg::render(&tree, Transform::from_scale(DENSITY, DENSITY), &mut dots.as_mut());
        dots.encode_png().map_err(|error| fail(error.to_string()))
    }
}

/// Which part of a text is at the given coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// Style of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text {
    pub(crate) size: f64,
    pub(crate) anchor: Anchor,
    /// Degrees clockwise.
    pub(crate) turned: f64,
    /// Whether it is drawn paler than the rest.
    pub(crate) pale: bool,
}

impl Text {
    pub(crate) const fn new(size: f64, anchor: Anchor) -> Self {
        Self { size, anchor, turned: 0.0, pale: false }
    }
}

/// The approximate width of a text.
pub(crate) fn wide(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * LETTER
}

/// A drawing in progress.
#[derive(Debug)]
pub(crate) struct Drawing {
    width: f64,
    height: f64,
    body: String,
}

impl Drawing {
    pub(crate) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// Appends an element unchanged; text in it must already be escaped.
    pub(crate) fn raw(&mut self, element: &str) {
        self.body.push_str(element);
        self.body.push('\n');
    }

    /// Draws a filled rectangle; `fill` is any colour of SVG.
    pub(crate) fn rect(&mut self, [x, y]: [f64; 2], [width, height]: [f64; 2], fill: &str) {
        let [x, y, width, height] = [x, y, width, height].map(number);
        self.raw(&format!(r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"/>"#));
    }

    /// Draws a frame without filling.
    pub(crate) fn frame(&mut self, [x, y]: [f64; 2], [width, height]: [f64; 2], stroke: &str, thick: f64) {
        let [x, y, width, height] = [x, y, width, height].map(number);
        self.raw(&format!(
            r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="none" stroke="{stroke}" stroke-width="{thick}"/>"#
        ));
    }

    /// Draws a straight line in the colour of the text, with the given opacity.
    pub(crate) fn line(&mut self, from: [f64; 2], to: [f64; 2], opacity: f64) {
        let [x1, y1, x2, y2] = [from[0], from[1], to[0], to[1]].map(number);
        self.raw(&format!(
            r#"<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="currentColor" stroke-opacity="{opacity}"/>"#
        ));
    }

    /// Draws a line through points.
    pub(crate) fn path(&mut self, points: &[[f64; 2]], stroke: &str, dashed: bool) {
        let mut d = String::new();
        for (at, [x, y]) in points.iter().enumerate() {
            let _ = write!(d, "{}{} {}", if at == 0 { 'M' } else { 'L' }, number(*x), number(*y));
        }
        let dashes = if dashed { r#" stroke-dasharray="5 3""# } else { "" };
        self.raw(&format!(r#"<path d="{d}" fill="none" stroke="{stroke}" stroke-width="1.6"{dashes}/>"#));
    }

    /// Draws a single line of text.
    pub(crate) fn text(&mut self, [x, y]: [f64; 2], text: &str, how: Text) {
        let anchor = match how.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let [x, y] = [x, y].map(number);
        let turned = if how.turned == 0.0 {
            String::new()
        } else {
            format!(r#" transform="rotate({} {x} {y})""#, how.turned)
        };
        let opacity = if how.pale { r#" fill-opacity="0.65""# } else { "" };
        let (size, text) = (how.size, escaped(text));
        self.raw(&format!(
            r#"<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="currentColor"{opacity}{turned}>{text}</text>"#
        ));
    }

    /// Draws an image from a `data:` URL, scaled without smoothing.
    pub(crate) fn image(&mut self, [x, y]: [f64; 2], [width, height]: [f64; 2], address: &str) {
        let [x, y, width, height] = [x, y, width, height].map(number);
        self.raw(&format!(
            r#"<image x="{x}" y="{y}" width="{width}" height="{height}" preserveAspectRatio="none" image-rendering="optimizeSpeed" style="image-rendering:pixelated" href="{address}"/>"#
        ));
    }

    /// The finished drawing; `name` is its description for screen readers.
    pub(crate) fn finish(self, name: &str) -> Picture {
        let whole = self.width.ceil() as u32;
        let [width, height] = [self.width, self.height].map(number);
        let (name, body) = (escaped(name), self.body);
        Picture {
            width: whole,
            svg: format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
                 height=\"{height}\" font-family=\"{FAMILY}\" role=\"img\" aria-label=\"{name}\">\n{body}</svg>"
            ),
        }
    }
}

/// A coordinate with at most two decimals; a hundredth of a pixel is invisible.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A colour in SVG notation.
pub(crate) fn colour([red, green, blue]: Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Text escaped for SVG and HTML. Control characters, which neither format allows, become spaces.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => plain.push_str("&amp;"),
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '"' => plain.push_str("&quot;"),
            '\'' => plain.push_str("&#39;"),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => plain.push(' '),
            letter => plain.push(letter),
        }
    }
    plain
}

/// An image of `size` [width, height] as a `data:` URL of a PNG file.
///
/// # Errors
/// [`Error::Encoding`] from the encoder.
pub(crate) fn image_address(size: [usize; 2], dot: impl Fn([usize; 2]) -> Colour) -> Result<String, Error> {
    let [width, height] = size;
    let dots: Vec<u8> = (0..height).flat_map(|y| (0..width).map(move |x| [x, y])).flat_map(dot).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&dots)?;
    writer.finish()?;
    Ok(format!("data:image/png;base64,{}", base64(&bytes)))
}

/// Base64 with padding (RFC 4648).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for letter in 0..4 {
            let known = letter <= three.len();
            text.push(if known {
                char::from(LETTERS[(bits >> (18 - 6 * letter) & 63) as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        // RFC 4648, section 10.
        let shown = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(shown, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    #[test]
    fn text_is_no_markup_and_has_letters() {
        let mut drawing = Drawing::new(200.0, 30.0);
        drawing.text([10.0, 20.0], "<script>\u{1b}&\"'", Text::new(16.0, Anchor::Start));
        let picture = drawing.finish("a <b>");
        assert!(!picture.inline().contains("<script>") && !picture.inline().contains('\u{1b}'));
        let png = picture.png().expect("a picture");
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().expect("a PNG");
        let mut dots = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut dots).expect("an image");
        assert_eq!((info.width, info.height), (400, 60));
        let dark = dots.chunks(4).filter(|dot| dot[0] < 100).count();
        assert!(dark > 300, "letters are drawn: {dark} dark dots");
    }
}
