//! The text exposition format 0.0.4, written straight into one buffer.

use std::io::Write;

/// Something that knows numbers only when asked: queue lengths, ages, what an upstream's checker
/// thinks. Called once per scrape on the metrics listener's thread; must not wait.
pub trait Collect: Send + Sync {
    /// Writes its families.
    fn collect(&self, page: &mut Page);
}

impl<F: Fn(&mut Page) + Send + Sync> Collect for F {
    fn collect(&self, page: &mut Page) {
        self(page);
    }
}

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

/// A page being written. A family's samples must follow its [`Page::family`].
pub struct Page {
    text: Vec<u8>,
    prefix: String,
    family: String,
}

impl Page {
    pub(super) fn new(prefix: &str, capacity: usize) -> Self {
        Self {
            text: Vec::with_capacity(capacity),
            prefix: prefix.to_owned(),
            family: String::new(),
        }
    }

    /// Starts one of APISIX's families: the configured prefix is put before `name`.
    pub fn apisix_family(&mut self, name: &str, help: &str, kind: Kind) {
        let name = format!("{}{name}", self.prefix);
        self.family(&name, help, kind);
    }

    /// Starts a family under its full name. `help` is one line.
    pub fn family(&mut self, name: &str, help: &str, kind: Kind) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        name.clone_into(&mut self.family);
        // Writing into a vector cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample of the current family. Label names are the caller's, values any text.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut text = String::new();
        for (name, label) in labels {
            push_label(&mut text, name, label);
        }
        self.raw("", &text, "", value);
    }

    /// As [`Page::sample`], for integers.
    pub fn integer(&mut self, labels: &[(&str, &str)], value: u64) {
        let mut text = String::new();
        for (name, label) in labels {
            push_label(&mut text, name, label);
        }
        self.raw_integer("", &text, "", value);
    }

    /// A sample whose labels are text already. `suffix` goes behind the family's name, `more`
    /// behind the labels.
    pub(super) fn raw(&mut self, suffix: &str, labels: &str, more: &str, value: f64) {
        self.head(suffix, labels, more);
        let _ = writeln!(self.text, " {value}");
    }

    /// As [`Page::raw`], for integers, without going through floating point.
    pub(super) fn raw_integer(&mut self, suffix: &str, labels: &str, more: &str, value: u64) {
        self.head(suffix, labels, more);
        self.text.push(b' ');
        let mut digits = itoa::Buffer::new();
        self.text.extend_from_slice(digits.format(value).as_bytes());
        self.text.push(b'\n');
    }

    fn head(&mut self, suffix: &str, labels: &str, more: &str) {
        self.text.extend_from_slice(self.family.as_bytes());
        self.text.extend_from_slice(suffix.as_bytes());
        if labels.is_empty() && more.is_empty() {
            return;
        }
        self.text.push(b'{');
        self.text.extend_from_slice(labels.as_bytes());
        if !labels.is_empty() && !more.is_empty() {
            self.text.push(b',');
        }
        self.text.extend_from_slice(more.as_bytes());
        self.text.push(b'}');
    }

    pub(super) fn into_text(self) -> Vec<u8> {
        self.text
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Appends `name="value"`, with a comma where something stands already.
pub(super) fn push_label(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(name);
    text.push_str("=\"");
    if value.bytes().any(|c| matches!(c, b'\\' | b'"' | b'\n')) {
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
    } else {
        text.push_str(value);
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_cannot_forge_samples() {
        let mut page = Page::new("p_", 0);
        page.apisix_family("x", "Help.", Kind::Gauge);
        page.sample(&[("a", "1\"} 7\nx{b=\"\\")], 1.5);
        page.sample(&[], 2.0);
        assert_eq!(
            String::from_utf8_lossy(&page.into_text()),
            "# HELP p_x Help.\n# TYPE p_x gauge\n\
             p_x{a=\"1\\\"} 7\\nx{b=\\\"\\\\\"} 1.5\np_x 2\n"
        );
    }
}
