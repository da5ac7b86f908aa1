//! Reading what people name on the command line: files, and standard input as `-`.

use std::io::Read;

use crate::error::Error;

/// Largest file: a million commands.
const FILE_BYTES: u64 = 256 << 20;

/// Reads a file or, for `-`, standard input.
///
/// # Errors
/// `Usage`, naming the file.
pub(crate) fn read_text(path: &str) -> Result<String, Error> {
    let wrong = |error| Error::Usage(format!("cannot read {path}: {error}"));
    let source: Box<dyn Read> = if path == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(wrong)?)
    };
    let mut text = String::new();
    source.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(wrong)?;
    if text.len() as u64 > FILE_BYTES {
        return Err(Error::Usage(format!("{path} is larger than {} MiB; split it", FILE_BYTES >> 20)));
    }
    Ok(text)
}
