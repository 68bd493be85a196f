//! Reading `crosspoint.json`, and telling all that is wrong with it at once.

use super::{AuthorPolicy, FlowManifest, Language, MANIFEST, Manifest, TriggerManifest, invalid};
use crate::{CronTimetable, subprocess::is_module};
use crosspoint_core::{
    Code, Egress, EgressPolicy, ErrorExt, Isolation, Problem, Result, Schemas, Timestamp, Timetable,
};
use semver::Version;
use serde_json::Value;
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path};

/// How large `crosspoint.json` may be, in bytes.
const LARGEST: u64 = 1 << 20;

/// Reads the manifest of an artifact whose files lie in `folder`, and checks it against them and against what the host
/// grants.
///
/// # Errors
/// [`Code::ArtifactInvalid`] with every problem.
pub(super) fn read(folder: &Path, policy: &AuthorPolicy, schemas: &dyn Schemas, now: Timestamp) -> Result<Manifest> {
    let manifest = parse(folder, schemas)?;
    let problems = problems(&manifest, folder, policy, now);
    if !problems.is_empty() {
        return Err(invalid("crosspoint.json has problems").with_problems(problems));
    }
    Ok(manifest)
}

/// Reads the manifest, as far as it can be told without its files.
pub(super) fn parse(folder: &Path, schemas: &dyn Schemas) -> Result<Manifest> {
    let path = folder.join(MANIFEST);
    let Ok(metadata) = fs::metadata(&path) else {
        let below = fs::read_dir(folder).into_iter().flatten().flatten();
        let below = below
            .map(|entry| entry.file_name())
            .find(|name| folder.join(name).join(MANIFEST).is_file());
        let message = match below {
            Some(name) => format!(
                "there is no crosspoint.json at the top, but one in `{0}`: publish that folder, or make the archive of \
                 what is in it (`tar -czf artifact.tar.gz -C {0} .`)",
                name.to_string_lossy()
            ),
            None => "there is no crosspoint.json at the top".to_owned(),
        };
        return Err(invalid(message));
    };
    if metadata.len() > LARGEST {
        return Err(invalid(format!(
            "crosspoint.json has {} bytes; at most {LARGEST} are read",
            metadata.len()
        )));
    }
    let bytes = fs::read(&path).or_fail(Code::ArtifactInvalid, "crosspoint.json cannot be read")?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|e| invalid(format!("crosspoint.json is not JSON: {e}")).caused_by(e))?;
    // The schema finds every problem with its place, the type only the first.
    let checked = (schemas.compile(&Manifest::schema())?)(&value);
    if let Err(error) = checked {
        return Err(invalid("crosspoint.json has problems").with_problems(error.problems().to_vec()));
    }
    serde_json::from_value(value)
        .map_err(|e| invalid("crosspoint.json has problems").with_problems(vec![Problem::new("", e.to_string())]))
}

fn problems(manifest: &Manifest, folder: &Path, policy: &AuthorPolicy, now: Timestamp) -> Vec<Problem> {
    let mut found = Found(Vec::new());
    match Version::parse(&manifest.version) {
        Err(error) => found.add("/version", format!("is not a semantic version such as 1.0.0: {error}")),
        Ok(version) if !version.build.is_empty() => {
            found.add(
                "/version",
                "has build metadata (`+..`), which does not tell versions apart: leave it out",
            );
        }
        Ok(_) if manifest.version.len() > 64 => found.add("/version", "is longer than 64 characters"),
        Ok(_) => {}
    }
    if manifest.config.get("type").and_then(Value::as_str) != Some("object") {
        found.add("/config/type", "is \"object\": a configuration has named fields");
    }
    let mut names = BTreeSet::new();
    for (index, slot) in manifest.connections.iter().enumerate() {
        if !names.insert(&slot.name) {
            found.add(
                format!("/connections/{index}/name"),
                "is the name of another connection, too",
            );
        }
    }
    let mut names = BTreeSet::new();
    for (index, flow) in manifest.flows.iter().enumerate() {
        let at = format!("/flows/{index}");
        if !names.insert(&flow.name) {
            found.add(format!("{at}/name"), "is the name of another flow, too");
        }
        found.trigger(&at, &flow.trigger, flow.input.is_some(), now);
        found.entry(&at, flow, folder);
        found.grants(&at, flow, policy);
        found.warm(&at, flow);
        found.bounds(&at, flow);
    }
    found.0
}

struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem::new(pointer, message));
    }

    fn trigger(&mut self, at: &str, trigger: &TriggerManifest, input: bool, now: Timestamp) {
        match trigger {
            TriggerManifest::Event(name) => {
                if name.is_empty() || name.len() > 128 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
                    let message = "is the name of one of the host's events, such as `order.created`";
                    self.add(format!("{at}/trigger/event"), message);
                }
            }
            TriggerManifest::Schedule(spec) => {
                if let Err(error) = CronTimetable::new().next(spec, now) {
                    self.add(format!("{at}/trigger/schedule"), error.message());
                }
                if input {
                    self.add(
                        format!("{at}/input"),
                        "is not for schedules: they bring the time that they were due",
                    );
                }
            }
            TriggerManifest::Call => {}
        }
    }

    fn entry(&mut self, at: &str, flow: &FlowManifest, folder: &Path) {
        let program = flow.entry.program.strip_prefix("./").unwrap_or(&flow.entry.program);
        let pointer = format!("{at}/entry/program");
        if program.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return self.add(pointer, "is the path of a file below the artifact, without `..`");
        }
        for (index, argument) in flow.entry.args.iter().enumerate() {
            if argument.contains('\0') || argument.len() > 32 << 10 {
                self.add(format!("{at}/entry/args/{index}"), "has a NUL, or more than 32 KiB");
            }
        }
        // What was gathered has nothing in it but files and folders, so nothing is followed.
        let metadata = fs::metadata(folder.join(program)).ok().filter(fs::Metadata::is_file);
        let Some(metadata) = metadata else {
            return self.add(pointer, format!("there is no file `{program}` in the artifact"));
        };
        if flow.language == Language::Static && metadata.permissions().mode() & 0o100 == 0 {
            let message = format!(
                "`{program}` is not executable: set its bit (`chmod +x`, `git update-index --chmod=+x`), or say in \
                 `language` what runs it"
            );
            self.add(pointer, message);
        }
    }

    fn warm(&mut self, at: &str, flow: &FlowManifest) {
        let Some(warm) = &flow.warm else { return };
        if flow.language != Language::Python {
            self.add(format!("{at}/warm"), "is for the language `python` alone");
        }
        for (index, name) in warm.imports.iter().enumerate() {
            if !is_module(name) {
                self.add(
                    format!("{at}/warm/imports/{index}"),
                    "is not the name of a Python module",
                );
            }
        }
    }

    /// A start comes at a whole millisecond, so that more of them in a time cannot be kept apart.
    fn bounds(&mut self, at: &str, flow: &FlowManifest) {
        if let Some(rate) = flow.rate
            && u64::from(rate.count) > rate.per_ms
        {
            let message = format!(
                "is more than one execution a millisecond: `count` is at most {} with this `per_ms`",
                rate.per_ms
            );
            self.add(format!("{at}/rate/count"), message);
        }
        if flow.stateful && flow.max_in_flight.is_some_and(|max| max > 1) {
            let message = "is 1 for a flow with a state, whose executions run one at a time: leave it out, or say `\"stateful\": false`";
            self.add(format!("{at}/max_in_flight"), message);
        }
    }

    fn grants(&mut self, at: &str, flow: &FlowManifest, policy: &AuthorPolicy) {
        match flow.isolation {
            Some(asked) if asked < policy.isolation => {
                let message = format!(
                    "is less than this host asks of what is published: leave it out, or say at least `{}`",
                    policy.isolation
                );
                self.add(format!("{at}/isolation"), message);
            }
            _ => {}
        }
        let isolation = flow.isolation.unwrap_or(policy.isolation).max(policy.isolation);
        match &flow.egress {
            Some(Egress::Open) if !policy.open_egress && isolation >= Isolation::Confined => {
                let message = "this host grants no open network: name the hosts that are called, `{ \"allow\": [..] }`";
                self.add(format!("{at}/egress"), message);
            }
            Some(Egress::Allow(hosts)) => {
                for (index, host) in hosts.iter().enumerate() {
                    if let Err(error) = EgressPolicy::new().allow_host(host) {
                        self.add(format!("{at}/egress/allow/{index}"), error.message());
                    }
                }
            }
            _ => {}
        }
        for (name, most) in policy.beyond(&flow.limits) {
            self.add(
                format!("{at}/limits/{name}"),
                format!("is more than this host grants: at most {most}"),
            );
        }
        if let Err(error) = flow.retry.validate() {
            for problem in error.problems() {
                self.add(format!("{at}/retry{}", problem.pointer), problem.message.clone());
            }
        }
    }
}
