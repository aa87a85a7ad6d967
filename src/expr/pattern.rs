//! Regexes out of configuration: linear in the input's length, bounded in memory.

use regex::{Regex, RegexBuilder, bytes};

/// Bytes a compiled regex may take, and its lazily built automaton.
const SIZE_LIMIT: usize = 8 << 20;

/// Longest pattern text taken at all.
const LENGTH_LIMIT: usize = 16 << 10;

/// Why a pattern was refused. Does not quote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not in the grammar of the `regex` crate: look-around and back-references are not.
    #[error("must be a regular expression without look-around and back-references")]
    Syntax,
    /// Too long, or too large once compiled.
    #[error("regular expression is too large")]
    TooLarge,
}

/// How a pattern reads its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one per letter of nginx's options"
)]
pub struct Options {
    /// `i`: letters match in either case.
    pub ignore_case: bool,
    /// `m`: `^` and `$` match at line ends.
    pub multi_line: bool,
    /// `s`: `.` matches line ends.
    pub dot_all: bool,
    /// `x`: white space and comments in the pattern do not count.
    pub extended: bool,
}

/// Compiles `pattern`.
///
/// Differs from APISIX, which runs PCRE: look-around and back-references are refused, for they can
/// take exponential time.
///
/// # Errors
/// The pattern does not parse or is too large.
pub fn compile(pattern: &str, ignore_case: bool) -> Result<Regex, PatternError> {
    if pattern.len() > LENGTH_LIMIT {
        return Err(PatternError::TooLarge);
    }
    RegexBuilder::new(pattern)
        .case_insensitive(ignore_case)
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| refusal(&error))
}

/// As [`compile`], for input that need not be text.
///
/// # Errors
/// The pattern does not parse or is too large.
pub fn compile_bytes(pattern: &str, options: Options) -> Result<bytes::Regex, PatternError> {
    if pattern.len() > LENGTH_LIMIT {
        return Err(PatternError::TooLarge);
    }
    bytes::RegexBuilder::new(pattern)
        .case_insensitive(options.ignore_case)
        .multi_line(options.multi_line)
        .dot_matches_new_line(options.dot_all)
        .ignore_whitespace(options.extended)
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| refusal(&error))
}

fn refusal(error: &regex::Error) -> PatternError {
    match error {
        regex::Error::CompiledTooBig(_) => PatternError::TooLarge,
        _ => PatternError::Syntax,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_would_take_too_much_are_refused() {
        let huge = "x".repeat(LENGTH_LIMIT + 1);
        for (pattern, expected) in [
            (r"(?:\w{1000}){1000}", PatternError::TooLarge),
            (huge.as_str(), PatternError::TooLarge),
            ("(", PatternError::Syntax),
            ("a(?!b)", PatternError::Syntax),
            (r"(a)\1", PatternError::Syntax),
        ] {
            assert_eq!(compile(pattern, false).err(), Some(expected));
        }
    }

    #[test]
    fn case_counts_unless_told_otherwise() {
        let strict = compile("^abc$", false).expect("pattern is valid");
        let loose = compile("^abc$", true).expect("pattern is valid");
        assert!(!strict.is_match("ABC"), "case counts");
        assert!(loose.is_match("ABC"), "case does not count");
    }
}
