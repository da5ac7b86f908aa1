//! Bodies of the REST API about concurrency keys.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How often a key may be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateBody {
    /// So many attempts may begin, 1 to 100,000,
    pub count: u32,
    /// in so many milliseconds, 1 to 30 days.
    pub per_ms: u64,
}

/// The body of `PUT /keys/{name}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeyBody {
    /// How many attempts may hold it at once, 1 to 100,000; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// How many may begin in a time; no such bound when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateBody>,
}

/// A concurrency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    /// Its name.
    pub name: String,
    /// How many attempts may hold it at once.
    pub limit: u32,
    /// How many may begin in a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateBody>,
    /// Whether somebody has configured it; otherwise it is there because tasks want it.
    pub configured: bool,
    /// Tasks that hold it, at most 1,000.
    pub holders: Vec<u64>,
    /// How many hold it.
    pub held: u32,
    /// Ready tasks that want it.
    pub waiting: u32,
}

/// The answer to `GET /keys`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    /// By name.
    pub keys: Vec<KeyView>,
}
