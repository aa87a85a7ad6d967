//! Base64 as nginx's decoder, and so APISIX, reads it: padding may be left out.

use base64::alphabet::{Alphabet, STANDARD as STANDARD_ALPHABET, URL_SAFE as URL_SAFE_ALPHABET};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// With `+` and `/`. Unused bits are zero, so that each value is written in one way.
pub const STANDARD: GeneralPurpose = engine(&STANDARD_ALPHABET, false);

/// With `-` and `_`. Unused bits are zero.
pub const URL_SAFE: GeneralPurpose = engine(&URL_SAFE_ALPHABET, false);

/// With `+` and `/`; unused bits may be set. For what is configured, never for what clients send.
pub const WITH_UNUSED_BITS: GeneralPurpose = engine(&STANDARD_ALPHABET, true);

const fn engine(alphabet: &Alphabet, unused_bits: bool) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(unused_bits);
    GeneralPurpose::new(alphabet, config)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn padding_may_be_left_out_and_unused_bits_are_zero() {
        for engine in [STANDARD, URL_SAFE, WITH_UNUSED_BITS] {
            for text in ["YTpiYg==", "YTpiYg"] {
                assert_eq!(engine.decode(text).as_deref(), Ok(&b"a:bb"[..]), "{text}");
            }
            assert!(engine.decode("YTpiY").is_err(), "cut short");
        }
        assert!(STANDARD.decode("YTpiYh").is_err() && URL_SAFE.decode("YTpiYh").is_err());
        assert!(WITH_UNUSED_BITS.decode("YTpiYh").is_ok());
        assert!(STANDARD.decode("-_-_").is_err() && URL_SAFE.decode("+/+/").is_err());
    }
}
