//! Times on the wire: RFC 3339 in UTC with microseconds, made from the core's [`Wall`].

use std::fmt;

use agentflow_core::time::Wall;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment as clients read and write it, such as `2026-11-22T17:00:00.5Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, utoipa::ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Timestamp(pub Wall);

impl From<Wall> for Timestamp {
    fn from(wall: Wall) -> Self {
        Self(wall)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Outside the calendar (year -9999 to 9999) nothing sensible can be shown.
        match jiff::Timestamp::from_microsecond(self.0.0) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => write!(f, "{}us", self.0.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let timestamp: jiff::Timestamp = text.parse().map_err(|_| {
            serde::de::Error::custom("expected an RFC 3339 time such as 2026-11-22T17:00:00Z")
        })?;
        Ok(Self(Wall(timestamp.as_microsecond())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339() {
        let time = Timestamp(Wall(1_795_366_800_500_000));
        let text = serde_json::to_string(&time).expect("text");
        assert_eq!(text, r#""2026-11-22T17:00:00.5Z""#);
        assert_eq!(serde_json::from_str::<Timestamp>(&text).expect("own text"), time);
        assert!(serde_json::from_str::<Timestamp>(r#""yesterday""#).is_err());
    }
}
