//! `stage.tenant`.

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_signal::logs::TENANT_LABEL;

use super::stage::{Build, Compile, Emit, Next, Slot, Stage, StageError, Text, Work, check};

/// Sets the tenant that the entry is sent for.
///
/// Exactly one of the arguments says which. An empty tenant changes nothing.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TenantStage {
    /// Name of the label that is the tenant.
    #[arg(default = "")]
    label: String,
    /// Name of the extracted value that is the tenant.
    #[arg(default = "")]
    source: String,
    /// The tenant.
    #[arg(default = "")]
    value: String,
}

impl TenantStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for TenantStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        let fields = &["label", "source", "value"];
        let tenant = match (self.label.as_str(), self.source.as_str(), self.value.as_str()) {
            ("", "", "") => return Err(StageError::of(fields, "label, source or value config are required")),
            (label, "", "") => From::Label(label.to_owned()),
            ("", source, "") => From::Extracted(cx.slot(source)),
            ("", "", value) => From::Config(cx.text(value)),
            _ => {
                let text =
                    "label, source and value are mutually exclusive: you should set source, value or label but not all";
                return Err(StageError::of(fields, text));
            }
        };
        Ok(Box::new(Tenant { from: tenant, label: cx.text(TENANT_LABEL) }))
    }
}

struct Tenant {
    from: From,
    label: Text,
}

enum From {
    Label(String),
    Extracted(Slot),
    Config(Text),
}

impl Stage for Tenant {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let tenant = match &self.from {
            From::Label(name) => work.label(name).map(str::to_owned).map(|tenant| work.add(tenant.as_bytes())),
            From::Extracted(slot) => work.text_of(work.value(*slot)),
            From::Config(tenant) => Some(*tenant),
        };
        if let Some(tenant) = tenant.filter(|tenant| !tenant.is_empty()) {
            work.set_label(self.label, tenant);
        }
        Next::Keep
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("tenant") >= 11);
    }
}
