//! How a client's text is kept from ending a field or a line of a log.

/// How values are escaped (`access_log_format_escape`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escape {
    /// `"`, `\`, control characters and bytes above 126 as `\xXX`; what is absent is `-`.
    #[default]
    Default,
    /// As the inside of a JSON string; what is absent is empty.
    Json,
    /// As it is, except line feeds and carriage returns; what is absent is empty.
    None,
}

impl Escape {
    /// Reads the configuration's word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "default" => Some(Self::Default),
            "json" => Some(Self::Json),
            "none" => Some(Self::None),
            _ => None,
        }
    }

    /// What stands for an absent value.
    pub(super) const fn absent(self) -> &'static [u8] {
        match self {
            Self::Default => b"-",
            Self::Json | Self::None => b"",
        }
    }

    /// Appends `value`, escaped.
    pub fn write(self, value: &str, out: &mut Vec<u8>) {
        let escaped = match self {
            Self::Default => &ESCAPED_DEFAULT,
            Self::Json => &ESCAPED_JSON,
            Self::None => &ESCAPED_NONE,
        };
        let mut rest = value.as_bytes();
        while let Some(at) = rest.iter().position(|byte| escaped[usize::from(*byte)]) {
            out.extend_from_slice(&rest[..at]);
            self.write_escaped(rest[at], out);
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
    }

    fn write_escaped(self, byte: u8, out: &mut Vec<u8>) {
        let short = match byte {
            _ if self != Self::Json => None,
            b'"' => Some(b'"'),
            b'\\' => Some(b'\\'),
            b'\n' => Some(b'n'),
            b'\r' => Some(b'r'),
            b'\t' => Some(b't'),
            0x08 => Some(b'b'),
            0x0c => Some(b'f'),
            _ => None,
        };
        if let Some(short) = short {
            out.extend_from_slice(&[b'\\', short]);
            return;
        }
        let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
        let prefix: &[u8] = if self == Self::Json { b"\\u00" } else { b"\\x" };
        out.extend_from_slice(prefix);
        out.extend_from_slice(&digits);
    }
}

/// `text` as the inside of a JSON string.
pub(super) fn json_inside(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    Escape::Json.write(text, &mut out);
    // Escaping replaces ASCII by ASCII, so what was UTF-8 stays so.
    String::from_utf8_lossy(&out).into_owned()
}

const ESCAPED_DEFAULT: [bool; 256] = table(0x20, 0x7e, *b"\"\\");
const ESCAPED_JSON: [bool; 256] = table(0x20, 0xff, *b"\"\\");
/// Differs from nginx: a decoded `%0a` must not start a line of its own.
const ESCAPED_NONE: [bool; 256] = table(0, 0xff, *b"\n\r");

/// Which bytes are escaped: those outside `low..=high`, and `also`.
const fn table(low: usize, high: usize, also: [u8; 2]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = byte < low || byte > high;
        byte += 1;
    }
    table[also[0] as usize] = true;
    table[also[1] as usize] = true;
    table
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";
