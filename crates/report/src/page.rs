//! A report: one self-contained HTML page that loads nothing from elsewhere.

use std::fmt::Write;

use crate::points::{HoverPoint, json};
use crate::scatter::Scatter;
use crate::svg::{Picture, base64, escaped};

/// The style and the script of a page, which are embedded in it.
const STYLE: &str = include_str!("../page/page.css");
const SCRIPT: &str = include_str!("../page/page.js");
/// Pictures wider than this, in pixels, are not scaled down to fit: their text would be too small
/// to read.
const LONG: f64 = 1300.0;

/// One cell of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct PageCell {
    /// The displayed text.
    pub text: String,
    /// The sort key, if it is a number.
    pub number: Option<f64>,
    /// A small image before the text, as a `data:` URL.
    pub image: Option<String>,
}

impl PageCell {
    /// A cell of text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), number: None, image: None }
    }

    /// A number and its displayed form.
    #[must_use]
    pub fn number(text: impl Into<String>, number: f64) -> Self {
        Self { text: text.into(), number: Some(number), image: None }
    }
}

/// A page in progress.
#[derive(Debug, Clone)]
pub struct Page {
    title: String,
    body: String,
    plots: usize,
}

impl Page {
    /// A page that begins with its title.
    #[must_use]
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), body: format!("<h1>{}</h1>\n", escaped(title)), plots: 0 }
    }

    /// Adds a heading.
    pub fn heading(&mut self, text: &str) {
        self.add(format_args!("<h2>{}</h2>\n", escaped(text)));
    }

    /// Adds a paragraph.
    pub fn paragraph(&mut self, text: &str) {
        self.add(format_args!("<p>{}</p>\n", escaped(text)));
    }

    /// Adds a list of sentences.
    pub fn list(&mut self, sentences: &[String]) {
        let items: String = sentences.iter().map(|said| format!("<li>{}</li>\n", escaped(said))).collect();
        self.add(format_args!("<ul>\n{items}</ul>\n"));
    }

    /// Adds a list of names with their values.
    pub fn facts(&mut self, facts: &[(String, String)]) {
        let pair = |(name, value): &(String, String)| {
            format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(value))
        };
        self.add(format_args!("<dl>\n{}</dl>\n", facts.iter().map(pair).collect::<String>()));
    }

    /// Adds a picture with a caption.
    pub fn figure(&mut self, picture: &Picture, caption: &str) {
        let long = if picture.width() > LONG { " long" } else { "" };
        let (svg, caption) = (picture.inline(), escaped(caption));
        self.add(format_args!(
            "<figure><div class=\"wide{long}\">{svg}</div><figcaption>{caption}</figcaption></figure>\n"
        ));
    }

    /// Adds a picture from a PNG file.
    pub fn image(&mut self, png: &[u8], caption: &str) {
        let (address, caption) = (base64(png), escaped(caption));
        self.add(format_args!(
            "<figure><div class=\"wide\"><img class=\"picture\" src=\"data:image/png;base64,{address}\" alt=\"{caption}\" \
             loading=\"lazy\"></div><figcaption>{caption}</figcaption></figure>\n"
        ));
    }

    /// The size of the page so far, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// Adds a scatter plot whose dots show a description under the pointer.
    pub fn scatter(&mut self, scatter: &Scatter, caption: &str) {
        let (picture, points) = scatter.drawn();
        self.pointed(&picture, &points, caption);
    }

    /// Adds a picture with points that are described under the pointer: a plot of
    /// [`manhattan`](crate::manhattan()).
    pub fn pointed(&mut self, picture: &Picture, points: &[HoverPoint], caption: &str) {
        self.plots += 1;
        let (at, caption, svg, points) = (self.plots, escaped(caption), picture.inline(), json(points));
        let long = if picture.width() > LONG { " long" } else { "" };
        self.add(format_args!(
            "<figure><div class=\"wide{long}\" data-points=\"points{at}\">{svg}</div><figcaption>{caption}</figcaption></figure>\n\
             <script type=\"application/json\" id=\"points{at}\">{points}</script>\n"
        ));
    }

    /// Adds a table that can be sorted by clicking on a heading.
    pub fn table(&mut self, headings: &[&str], rows: &[Vec<PageCell>]) {
        // A column is one of text if its first cell has no number.
        let first = rows.first();
        let is_text = |at: usize| first.and_then(|row| row.get(at)).is_some_and(|cell| cell.number.is_none());
        let class = |at: usize| if is_text(at) { " class=\"text\"" } else { "" };
        let heading = |(at, name): (usize, &&str)| {
            format!("<th scope=\"col\"{}><button type=\"button\">{}</button></th>", class(at), escaped(name))
        };
        let head: String = headings.iter().enumerate().map(heading).collect();
        self.add(format_args!("<div class=\"scroll\"><table><thead><tr>{head}</tr></thead><tbody>\n"));
        for row in rows {
            self.body.push_str("<tr>");
            for (at, cell) in row.iter().enumerate() {
                let number = cell.number.map_or_else(String::new, |number| format!(" data-n=\"{number:e}\""));
                let image = cell.image.as_deref().map_or_else(String::new, |address| {
                    format!("<img src=\"{}\" alt=\"\" loading=\"lazy\"> ", escaped(address))
                });
                let (class, text) = (class(at), escaped(&cell.text));
                self.add(format_args!("<td{class}{number}>{image}{text}</td>"));
            }
            self.body.push_str("</tr>\n");
        }
        self.body.push_str("</tbody></table></div>\n");
    }

    /// The whole page.
    #[must_use]
    pub fn finish(self) -> String {
        let (title, body) = (escaped(&self.title), self.body);
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
             style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}<div id=\"tip\" role=\"status\"></div>\n\
             <script>\n{SCRIPT}</script>\n</body>\n</html>\n"
        )
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.body.write_fmt(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scatter::Dot;

    #[test]
    fn names_are_no_markup_and_nothing_is_fetched() {
        let evil = "</script><img src=x onerror=alert(1)>&\"'";
        let mut page = Page::new(evil);
        page.heading(evil);
        page.paragraph(evil);
        page.list(&[evil.to_owned()]);
        page.facts(&[(evil.to_owned(), evil.to_owned())]);
        page.table(&[evil], &[vec![PageCell::text(evil)], vec![PageCell::number(evil, f64::INFINITY)]]);
        let dot = Dot { x: 0.0, y: 1.0, group: 0, words: evil.to_owned(), image: None };
        let scatter = Scatter {
            title: evil.to_owned(),
            axes: [evil.to_owned(), evil.to_owned()],
            groups: vec![evil.to_owned()],
            equal: true,
            dots: vec![dot],
        };
        page.scatter(&scatter, evil);
        let html = page.finish();
        assert!(!html.contains("<img src=x") && html.matches("</script>").count() == 2, "{html}");
        for word in ["http://", "https://", "url(", "@import", "<link"] {
            let own = html.replace("http://www.w3.org/2000/svg", "");
            assert!(!own.contains(word), "{word} is in the page");
        }
    }
}
