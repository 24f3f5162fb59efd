//! Points of a picture of which a page shows a description under the pointer.

/// A point of a picture with the description that is shown while the pointer is on it.
#[derive(Debug, Clone, PartialEq)]
pub struct HoverPoint {
    /// Across and down, in the picture's units.
    pub position: [f64; 2],
    /// The description, in lines.
    pub words: String,
    /// A small image, by its `data:` address.
    pub image: Option<String>,
}

/// What marks the point under the pointer; a picture with points ends in it.
pub(crate) const RING: &str =
    r#"<circle class="ring" r="7" fill="none" stroke="currentColor" stroke-width="2" visibility="hidden"/>"#;

/// Points as JSON that may be part of a page: [x, y, words, image].
pub(crate) fn json(points: &[HoverPoint]) -> String {
    let points: Vec<String> = points.iter().map(HoverPoint::json).collect();
    format!("[{}]", points.join(",\n"))
}

impl HoverPoint {
    fn json(&self) -> String {
        const ADDRESS: &str = "data:image/png;base64,";
        let image = self.image.as_deref().and_then(|address| address.strip_prefix(ADDRESS));
        let ([x, y], words) = (self.position, quoted(&self.words));
        format!("[{x:.1},{y:.1},{words},\"{}\"]", image.unwrap_or_default())
    }
}

/// A JSON text in which nothing ends a script.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '\n' => quoted.push_str("\\n"),
            letter
                if letter.is_control()
                    || matches!(letter, '"' | '\\' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}') =>
            {
                quoted.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
