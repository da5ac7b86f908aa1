//! `schedules`: what is begun again and again.

use agentflow_protocol::Timestamp;
use agentflow_protocol::api::Nothing;
use agentflow_protocol::schedule::{ScheduleBody, ScheduleView, Schedules};
use serde_json::{Map, Value, json};

use crate::args::{SchedulesAct, SetSchedule};
use crate::client::{Client, encode};
use crate::error::{Error, exit};
use crate::output::{Cell, Output};
use crate::workflow_file::{Given, WorkflowFile};

pub(super) fn schedules(act: Option<&SchedulesAct>, client: &Client, output: Output) -> Result<u8, Error> {
    let post = |name: &str, word: &str| client.post(&format!("{}/{word}", path(name)), &Nothing {});
    let schedule = match act {
        None => return list(&client.get("/api/v2/schedules")?, output),
        Some(SchedulesAct::Remove(one)) => {
            let rest: Schedules = client.delete(&path(&one.name))?;
            if output.json {
                output.json(&rest)?;
            }
            return Ok(exit::DONE);
        }
        Some(SchedulesAct::Set(set)) => make(set, client)?,
        Some(SchedulesAct::Pause(one)) => post(&one.name, "pause")?,
        Some(SchedulesAct::Resume(one)) => post(&one.name, "resume")?,
        Some(SchedulesAct::Trigger(one)) => post(&one.name, "trigger")?,
    };
    show(&schedule, output)
}

fn path(name: &str) -> String {
    format!("/api/v2/schedules/{}", encode(name))
}

fn make(set: &SetSchedule, client: &Client) -> Result<ScheduleView, Error> {
    let mut body = ScheduleBody {
        cron: set.cron.clone(),
        timezone: set.timezone.clone(),
        catch_up: Some(set.catch_up.into()),
        ..ScheduleBody::default()
    };
    let Some(file) = &set.file else {
        if !set.variables.is_empty() {
            return Err(Error::Usage("--var, --vars-file and --input go with a workflow file".to_owned()));
        }
        body.task = Some(task(set));
        return client.put(&path(&set.schedule.name), &body);
    };
    let file = WorkflowFile::read(file)?;
    let given = Given::read(&set.variables)?;
    // Here the lines of the file are known; the master sees a field of a larger body.
    file.instantiate(&given).map_err(|wrong| file.wrong(&wrong))?;
    body.workflow = Some(file.sent()?.to_value());
    (body.vars, body.inputs) = given.into_parts();
    client.put(&path(&set.schedule.name), &body)
}

fn task(set: &SetSchedule) -> Map<String, Value> {
    let (field, work) = match &set.shell {
        Some(line) => ("command", json!(line)),
        None => ("argv", json!(set.argv)),
    };
    Map::from_iter([(field.to_owned(), work)])
}

fn show(schedule: &ScheduleView, output: Output) -> Result<u8, Error> {
    if output.json {
        output.json(schedule)?;
        return Ok(exit::DONE);
    }
    let next = match schedule.next_at {
        _ if schedule.paused => "paused".to_owned(),
        next => format!("next at {}", time(next)),
    };
    output.line(format_args!("{}  {} {}, {next}", schedule.name, schedule.cron, schedule.timezone))?;
    Ok(exit::DONE)
}

fn list(answer: &Schedules, output: Output) -> Result<u8, Error> {
    if output.json {
        output.json(answer)?;
        return Ok(exit::DONE);
    }
    let rows: Vec<Vec<Cell>> = answer
        .schedules
        .iter()
        .map(|schedule| {
            let next = if schedule.paused { "paused".to_owned() } else { time(schedule.next_at) };
            vec![
                schedule.name.clone().into(),
                schedule.cron.clone().into(),
                schedule.timezone.clone().into(),
                next.into(),
                time(schedule.last_at).into(),
                schedule.fired.to_string().into(),
                if schedule.what.contains_key("workflow") { "workflow" } else { "task" }.into(),
            ]
        })
        .collect();
    output.table(&["NAME", "CRON", "ZONE", "NEXT", "LAST", "FIRED", "WHAT"], &rows)?;
    if rows.is_empty() {
        eprintln!("there are no schedules: make one with `agentflow schedules set NAME FILE --cron CRON`");
    }
    Ok(exit::DONE)
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}
