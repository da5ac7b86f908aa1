//! Identities and spread.

use crate::error::Error;

/// A fresh identity of 128 random bits, for idempotency keys and run ids.
pub(crate) fn random_hex(bytes: usize) -> Result<String, Error> {
    let mut buffer = [0; 16];
    let part = buffer.get_mut(..bytes).unwrap_or_default();
    getrandom::fill(part)
        .map_err(|error| Error::io("cannot read random numbers", std::io::Error::other(error.to_string())))?;
    Ok(part.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Spreads out the tries of many clients; a failing generator only loses the spread.
pub(super) fn random_share() -> f64 {
    let mut byte = [128];
    if getrandom::fill(&mut byte).is_err() {
        return 0.5;
    }
    f64::from(byte[0]) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_differ() {
        let one = random_hex(16).expect("randomness");
        assert_eq!(one.len(), 32);
        assert_ne!(one, random_hex(16).expect("randomness"));
    }
}
