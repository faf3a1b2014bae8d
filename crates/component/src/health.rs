//! How a component is.

use std::collections::VecDeque;
use std::time::SystemTime;

use parking_lot::Mutex;

/// How well something is. The order is from best to worst: the state of a component is the worst of what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HealthState {
    /// It does what it was asked to.
    Healthy,
    /// Nothing is known yet.
    Unknown,
    /// It does not.
    Unhealthy,
    /// It has ended.
    Exited,
}

impl HealthState {
    /// The name in metrics and in the HTTP API.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthState::Healthy => "healthy",
            HealthState::Unknown => "unknown",
            HealthState::Unhealthy => "unhealthy",
            HealthState::Exited => "exited",
        }
    }
}

/// A state, why, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// How well it is.
    pub state: HealthState,
    /// Why.
    pub message: String,
    /// When this was found out.
    pub updated: SystemTime,
}

impl Health {
    /// A state as of now.
    pub fn now(state: HealthState, message: impl Into<String>) -> Self {
        Health { state, message: message.into(), updated: SystemTime::now() }
    }

    /// The worst of several; of equally bad ones the newest.
    pub fn worst<'a>(of: impl IntoIterator<Item = &'a Health>) -> Option<&'a Health> {
        of.into_iter().max_by_key(|health| (health.state, health.updated))
    }
}

/// How many changes of its health are remembered of a component.
pub const HEALTH_HISTORY_MAX: usize = 20;

/// The health of a component: its last evaluation, whether it runs, and what it says itself.
#[derive(Debug)]
pub struct HealthBoard(Mutex<Parts>);

#[derive(Debug)]
struct Parts {
    evaluation: Health,
    run: Option<Health>,
    reported: Option<Health>,
    /// The states that it had, the newest last.
    history: VecDeque<Health>,
}

impl Parts {
    fn worst(&self) -> &Health {
        let known = std::iter::once(&self.evaluation).chain(&self.run).chain(&self.reported);
        Health::worst(known).unwrap_or(&self.evaluation)
    }

    /// Remembers the present state if it is another one. The same said again is no change.
    fn remember(&mut self) {
        let now = self.worst();
        if self.history.back().is_some_and(|last| last.state == now.state && last.message == now.message) {
            return;
        }
        let now = now.clone();
        if self.history.len() == HEALTH_HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(now);
    }
}

impl HealthBoard {
    /// Of a component that was made and not evaluated yet.
    pub fn new(message: &str) -> Self {
        let evaluation = Health::now(HealthState::Unknown, message);
        HealthBoard(Mutex::new(Parts {
            history: VecDeque::from([evaluation.clone()]),
            evaluation,
            run: None,
            reported: None,
        }))
    }

    /// The outcome of an evaluation.
    pub fn set_evaluation(&self, health: Health) {
        self.change(|parts| parts.evaluation = health);
    }

    /// Whether it runs.
    pub fn set_run(&self, health: Health) {
        self.change(|parts| parts.run = Some(health));
    }

    /// What the component says of itself; `None` takes it back.
    pub fn set_reported(&self, health: Option<Health>) {
        self.change(|parts| parts.reported = health);
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.0.lock();
        change(&mut parts);
        parts.remember();
    }

    /// The worst of what is known.
    pub fn current(&self) -> Health {
        self.0.lock().worst().clone()
    }

    /// The states that it had lately, the newest last, each with the time when it began.
    pub fn history(&self) -> Vec<Health> {
        self.0.lock().history.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_worst_state_counts_and_of_equals_the_newest() {
        let at = |state, seconds, message: &str| Health {
            state,
            message: message.into(),
            updated: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        };
        let all = [
            at(HealthState::Unhealthy, 1, "a"),
            at(HealthState::Unhealthy, 2, "b"),
            at(HealthState::Unknown, 9, "c"),
            at(HealthState::Healthy, 10, "d"),
        ];
        assert_eq!(Health::worst(&all).map(|h| h.message.as_str()), Some("b"));
    }

    #[test]
    fn what_a_component_says_of_itself_is_taken_back() {
        let board = HealthBoard::new("component created");
        assert_eq!(board.current().state, HealthState::Unknown);
        board.set_evaluation(Health::now(HealthState::Healthy, "component evaluated"));
        board.set_run(Health::now(HealthState::Healthy, "started component"));
        assert_eq!(board.current().message, "started component");
        board.set_reported(Some(Health::now(HealthState::Unhealthy, "no route to host")));
        assert_eq!(board.current().message, "no route to host");
        board.set_reported(None);
        assert_eq!(board.current().state, HealthState::Healthy);
    }

    #[test]
    fn changes_are_remembered_and_what_is_said_again_is_none() {
        let board = HealthBoard::new("component created");
        board.set_evaluation(Health::now(HealthState::Healthy, "component evaluated"));
        board.set_evaluation(Health::now(HealthState::Healthy, "component evaluated"));
        for at in 0..HEALTH_HISTORY_MAX {
            board.set_reported(Some(Health::now(HealthState::Unhealthy, format!("failure {at}"))));
            board.set_reported(Some(Health::now(HealthState::Unhealthy, format!("failure {at}"))));
        }
        let history = board.history();
        let messages: Vec<&str> = history.iter().map(|health| health.message.as_str()).collect();
        assert_eq!(messages.len(), HEALTH_HISTORY_MAX);
        assert_eq!((messages[0], messages[HEALTH_HISTORY_MAX - 1]), ("failure 0", "failure 19"));
    }
}
