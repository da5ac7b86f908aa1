//! Schedules: what clients write, when their times are, and what they begin.

use std::sync::Arc;

use agentflow_core::batch::{CatchUp, ScheduleRow};
use agentflow_core::kernel::{MakeTask, NewRun, PreparedRun, SavedSchedule, Scheduled};
use agentflow_core::time::Wall;
use agentflow_workflow::Tree;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::problem::FieldError;
use crate::submit::check_name;
use crate::workflow::{WorkflowTasks, definition_of};

/// The body of `PUT /schedules/{name}`: when, and either a task or a workflow.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleBody {
    /// Five fields (minute hour day month weekday), six with seconds first, or `@daily` and the like.
    pub cron: String,
    /// An IANA time zone such as `Europe/Berlin`; `UTC` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// What happens to times that passed while no master was there: `skip` (default), `once`, `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub catch_up: Option<CatchUp>,
    /// A task, as it would be posted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub task: Option<Map<String, Value>>,
    /// A workflow, or its text in YAML or JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub workflow: Option<Value>,
    /// Put over the workflow's `vars`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub vars: Option<Map<String, Value>>,
    /// What the workflow's expressions see as `inputs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub inputs: Option<Value>,
}

/// A schedule.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ScheduleView {
    /// Its name.
    pub name: String,
    /// When.
    pub cron: String,
    /// In which time zone.
    pub timezone: String,
    /// `skip`, `once` or `all`.
    #[schema(value_type = String)]
    pub catch_up: CatchUp,
    /// Whether it waits to be resumed.
    pub paused: bool,
    /// The next time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// The latest time that something was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<Timestamp>,
    /// How often something was begun.
    pub fired: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// `task` or `workflow`, as they were written.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub what: Map<String, Value>,
}

/// The answer to `GET /schedules`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Schedules {
    /// By name.
    pub schedules: Vec<ScheduleView>,
}

/// The first time after `after` that `cron` names in a time zone.
///
/// # Errors
/// What is wrong, and whether it is the zone.
fn next_time(cron: &str, zone: &str, after: Wall) -> Result<Wall, (&'static str, String)> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let pattern = parser.parse(cron).map_err(|error| {
        let fields = "minute 0-59, hour 0-23, day 1-31, month 1-12, weekday 0-7, with * , - and / between";
        ("/cron", format!("'{cron}' is no cron pattern: {error} (fields: {fields})"))
    })?;
    let zone = TimeZone::get(zone)
        .map_err(|_| ("/timezone", format!("'{zone}' is no IANA time zone, such as Europe/Berlin")))?;
    let now = jiff::Timestamp::from_microsecond(after.0)
        .map_err(|_| ("/cron", "the time is outside the calendar".to_owned()))?;
    let next = pattern
        .find_next_occurrence(&now.to_zoned(zone), false)
        .map_err(|_| ("/cron", format!("'{cron}' never comes (is there such a day in that month?)")))?;
    Ok(Wall(next.timestamp().as_microsecond()))
}

impl WorkflowTasks {
    /// When a schedule's next time is; for [`MakeTask::next_time`].
    #[must_use]
    pub fn next_time_of(cron: &str, zone: &str, after: Wall) -> Option<Wall> {
        next_time(cron, zone, after).ok()
    }
}

impl ScheduleBody {
    /// Checks a schedule and works out its first time.
    ///
    /// # Errors
    /// One entry per bad field.
    pub fn prepare(&self, name: &str, now: Wall) -> Result<SavedSchedule, Vec<FieldError>> {
        let mut errors = Vec::new();
        if let Err(why) = check_name(name) {
            errors.push(FieldError { pointer: String::new(), detail: format!("the name: {why}") });
        }
        let zone = self.timezone.as_deref().unwrap_or("UTC");
        let next_at = next_time(&self.cron, zone, now);
        if let Err((pointer, detail)) = &next_at {
            errors.push(FieldError { pointer: (*pointer).to_owned(), detail: detail.clone() });
        }
        let what = self.what();
        match (what, next_at) {
            (Ok(what), Ok(next_at)) if errors.is_empty() => {
                let body = serde_json::to_string(self).unwrap_or_default();
                Ok(SavedSchedule { row: self.row(name, zone, body.into(), next_at, now), what: Ok(what) })
            }
            (Err(more), _) => {
                errors.extend(more);
                Err(errors)
            }
            _ => Err(errors),
        }
    }

    fn row(&self, name: &str, zone: &str, body: Arc<str>, next_at: Wall, now: Wall) -> ScheduleRow {
        ScheduleRow {
            name: name.into(),
            body,
            cron: self.cron.as_str().into(),
            zone: zone.into(),
            catch_up: self.catch_up.unwrap_or_default(),
            paused: false,
            next_at: Some(next_at),
            last_at: None,
            fired: 0,
            created_at: now,
        }
    }

    fn what(&self) -> Result<Scheduled, Vec<FieldError>> {
        let wrong = |pointer: &str, detail: String| vec![FieldError { pointer: pointer.to_owned(), detail }];
        match (&self.task, &self.workflow) {
            (Some(_), Some(_)) | (None, None) => {
                Err(wrong("", "give either a task or a workflow".to_owned()))
            }
            (Some(task), None) => {
                let task = WorkflowTasks.make(task.clone()).map_err(|why| wrong("/task", why))?;
                Ok(Scheduled::Task(Box::new(task)))
            }
            (None, Some(workflow)) => {
                let tree: Tree = serde_json::from_value(workflow.clone())
                    .map_err(|error| wrong("/workflow", error.to_string()))?;
                let inputs = self.inputs.clone().unwrap_or_default();
                let vars = self.vars.clone().unwrap_or_default();
                let definition = definition_of(&tree, &vars, &inputs)?;
                Ok(Scheduled::Run(Box::new(NewRun { prepared: PreparedRun::new(definition), inputs })))
            }
        }
    }
}

/// A schedule as the database has it, with what it begins.
#[must_use]
pub fn saved(row: ScheduleRow) -> SavedSchedule {
    let body: Result<ScheduleBody, _> = serde_json::from_str(&row.body);
    let what = match body {
        Ok(body) => body.what().map_err(|errors| {
            let texts: Vec<String> = errors.into_iter().map(|error| error.detail).collect();
            Arc::from(texts.join("; "))
        }),
        Err(error) => Err(error.to_string().into()),
    };
    SavedSchedule { row, what }
}

/// A schedule as clients read it.
#[must_use]
pub fn view(row: &ScheduleRow) -> ScheduleView {
    let mut what: Map<String, Value> = serde_json::from_str(&row.body).unwrap_or_default();
    what.retain(|field, _| ["task", "workflow", "vars", "inputs"].contains(&field.as_str()));
    ScheduleView {
        name: row.name.as_ref().to_owned(),
        cron: row.cron.as_ref().to_owned(),
        timezone: row.zone.as_ref().to_owned(),
        catch_up: row.catch_up,
        paused: row.paused,
        next_at: row.next_at.map(Timestamp),
        last_at: row.last_at.map(Timestamp),
        fired: row.fired,
        created_at: row.created_at.into(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Wall {
        let timestamp: jiff::Timestamp = text.parse().expect("a time");
        Wall(timestamp.as_microsecond())
    }

    fn check(cron: &str, zone: &str, after: &str, expected: &str) {
        assert_eq!(next_time(cron, zone, at(after)), Ok(at(expected)), "{cron} {zone}");
    }

    #[test]
    fn times_follow_cron_and_the_zone() {
        check("*/5 * * * *", "UTC", "2026-11-25T10:00:00Z", "2026-11-25T10:05:00Z");
        check("30 4 * * MON", "UTC", "2026-11-25T10:00:00Z", "2026-11-30T04:30:00Z");
        check("0 9 * * *", "Europe/Berlin", "2026-11-25T10:00:00Z", "2026-11-26T08:00:00Z");
        check("0 9 * * *", "Europe/Berlin", "2026-06-25T10:00:00Z", "2026-06-26T07:00:00Z");
        check("*/10 * * * * *", "UTC", "2026-11-25T10:00:01Z", "2026-11-25T10:00:10Z");
        check("@daily", "UTC", "2026-11-25T10:00:01Z", "2026-11-26T00:00:00Z");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let errors = |json: &str| {
            let body: ScheduleBody = serde_json::from_str(json).expect("JSON");
            let errors = body.prepare("s", at("2026-11-25T10:00:00Z")).expect_err("wrong");
            errors.into_iter().map(|error| error.pointer).collect::<Vec<_>>()
        };
        assert_eq!(errors(r#"{"cron": "61 * * * *", "task": {"kind": "noop"}}"#), ["/cron"]);
        assert_eq!(errors(r#"{"cron": "0 0 30 2 *", "task": {"kind": "noop"}}"#), ["/cron"], "never comes");
        assert_eq!(errors(r#"{"cron": "@daily", "timezone": "Mars/Base", "task": {}}"#), ["/timezone"]);
        assert_eq!(errors(r#"{"cron": "@daily"}"#), [""]);
        assert_eq!(errors(r#"{"cron": "@daily", "task": {"kind": "dance"}}"#), ["/task"]);
        assert_eq!(errors(r#"{"cron": "@daily", "workflow": {"version": 1}}"#)[0], "/workflow");
    }

    #[test]
    fn a_schedule_comes_back_from_its_row() {
        let json = r#"{"cron": "@hourly", "workflow": "version: 1\ntasks: {a: {run: make}}\n"}"#;
        let body: ScheduleBody = serde_json::from_str(json).expect("JSON");
        let prepared = body.prepare("s", at("2026-11-25T10:00:00Z")).expect("fine");
        assert_eq!(saved(prepared.row.clone()), prepared);
        assert!(view(&prepared.row).what.contains_key("workflow"));
    }
}
