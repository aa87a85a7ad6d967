//! Text of resource files to [`Documents`](super::Documents).

use std::sync::Arc;

use super::yaml::at_offset;
use crate::diagnostic::{Diagnostic, Place, Severity};

/// The text of a file, without a byte order mark.
///
/// # Errors
/// It is not UTF-8; the finding says where.
pub fn utf8<'bytes>(bytes: &'bytes [u8], file: &Arc<str>) -> Result<&'bytes str, Diagnostic> {
    let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let at = at_offset(bytes, error.valid_up_to());
        Diagnostic {
            severity: Severity::Error,
            code: "syntax",
            place: Place {
                file: Some(file.clone()),
                line: at.line,
                column: at.column,
            },
            object: String::new(),
            field: String::new(),
            message: if utf16 {
                "expected UTF-8, found UTF-16"
            } else {
                "expected UTF-8"
            }
            .into(),
        }
    })
}
