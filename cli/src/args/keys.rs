//! The part of the command line that is about concurrency keys.

use std::time::Duration;

use agentflow_core::limits;
use clap::{Args, Subcommand};

use super::values::rate;

/// What can be done with concurrency keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysAct {
    /// Set how many attempts may hold a key, and how many may begin in a time
    Set(SetKey),
    /// Take the limits of a key away: one attempt may hold it, as often as it likes
    Remove(OneKey),
}

#[derive(Debug, Args)]
pub(crate) struct OneKey {
    /// The key's name
    #[arg(value_name = "KEY")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct SetKey {
    #[command(flatten)]
    pub(crate) key: OneKey,
    /// How many attempts may hold it at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::KEY_LIMIT)))]
    pub(crate) limit: u32,
    /// How many may begin in a time, such as 10/1m [default: no such bound]
    #[arg(long, value_name = "N/TIME", value_parser = rate)]
    pub(crate) rate: Option<(u32, Duration)>,
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::*;

    fn parse(words: &[&str]) -> Result<Command, clap::Error> {
        super::super::parse(words).map(|arguments| arguments.command)
    }

    #[test]
    fn a_key_is_set_with_a_limit_and_a_rate() {
        let Ok(Command::Keys { act: Some(KeysAct::Set(set)) }) =
            parse(&["keys", "set", "api", "--limit", "3", "--rate", "10/1m"])
        else {
            panic!("no set")
        };
        assert_eq!((set.key.name.as_str(), set.limit), ("api", 3));
        assert_eq!(set.rate, Some((10, Duration::from_mins(1))));
        assert!(parse(&["keys", "set", "api", "--rate", "10"]).is_err());
        assert!(parse(&["keys", "set", "api", "--rate", "0/1s"]).is_err());
        assert!(parse(&["keys", "set", "api", "--limit", "0"]).is_err());
        assert!(matches!(parse(&["keys"]), Ok(Command::Keys { act: None })));
    }
}
