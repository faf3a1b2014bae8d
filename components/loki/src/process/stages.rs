//! The blocks `stage.<name>`.

use corten_config::Arguments;

use super::stage::{Build, Compile, Stage, StageError};
use super::stage_cri::CriStage;
use super::stage_decolorize::DecolorizeStage;
use super::stage_docker::DockerStage;
use super::stage_drop::DropStage;
use super::stage_eventlogmessage::EventLogMessageStage;
use super::stage_geoip::GeoIpStage;
use super::stage_json::JsonStage;
use super::stage_label_drop::LabelDropStage;
use super::stage_label_keep::LabelKeepStage;
use super::stage_labels::LabelsStage;
use super::stage_limit::LimitStage;
use super::stage_logfmt::LogfmtStage;
use super::stage_luhn::LuhnStage;
use super::stage_match::MatchStage;
use super::stage_metrics::MetricsStage;
use super::stage_multiline::MultilineStage;
use super::stage_output::OutputStage;
use super::stage_pack::PackStage;
use super::stage_pattern::PatternStage;
use super::stage_regex::RegexStage;
use super::stage_replace::ReplaceStage;
use super::stage_sampling::SamplingStage;
use super::stage_split_json::SplitJsonStage;
use super::stage_static_labels::StaticLabelsStage;
use super::stage_structured_metadata::StructuredMetadataStage;
use super::stage_structured_metadata_drop::StructuredMetadataDropStage;
use super::stage_template::TemplateStage;
use super::stage_tenant::TenantStage;
use super::stage_timestamp::TimestampStage;
use super::stage_truncate::TruncateStage;
use super::stage_windowsevent::WindowsEventStage;

/// One step of the way of an entry.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub enum StageConfig {
    /// Takes lines as the container runtime interface writes them apart, and joins those that it had cut.
    Cri(CriStage),
    /// Removes ANSI escape sequences, such as those for colours, from the log line.
    Decolorize(DecolorizeStage),
    /// Takes the lines of Docker's JSON files apart.
    Docker(DockerStage),
    /// Drops entries for which all conditions hold.
    Drop(DropStage),
    /// Extracts the values of a message of the Windows event log.
    #[block(name = "eventlogmessage")]
    EventLogMessage(EventLogMessageStage),
    /// Extracts what a MaxMind database says about an IP address.
    #[block(name = "geoip")]
    GeoIp(GeoIpStage),
    /// Reads JSON and extracts values of it.
    Json(JsonStage),
    /// Removes labels.
    LabelDrop(LabelDropStage),
    /// Removes all labels but those that are named.
    LabelKeep(LabelKeepStage),
    /// Makes labels of extracted values.
    Labels(LabelsStage),
    /// Limits how many entries pass.
    Limit(LimitStage),
    /// Reads logfmt and extracts values of it.
    Logfmt(LogfmtStage),
    /// Replaces numbers that pass the Luhn check, as those of credit cards do.
    Luhn(LuhnStage),
    /// Lets entries pass further stages, or drops them, if a selector matches.
    Match(Box<MatchStage>),
    /// Makes metrics of entries.
    Metrics(MetricsStage),
    /// Joins the lines of blocks, such as stack traces, to one entry each.
    Multiline(MultilineStage),
    /// Makes an extracted value the log line.
    Output(OutputStage),
    /// Packs the log line and some labels into a JSON object, which becomes the line.
    Pack(PackStage),
    /// Extracts parts of a text by a pattern.
    Pattern(PatternStage),
    /// Extracts the named groups of a regular expression.
    Regex(RegexStage),
    /// Replaces what the groups of a regular expression capture.
    Replace(ReplaceStage),
    /// Keeps a part of the entries, chosen by chance.
    Sampling(SamplingStage),
    /// Makes an entry of each element of a JSON array.
    SplitJson(SplitJsonStage),
    /// Sets labels to fixed values.
    StaticLabels(StaticLabelsStage),
    /// Sets structured metadata from extracted values and labels.
    StructuredMetadata(StructuredMetadataStage),
    /// Removes structured metadata.
    StructuredMetadataDrop(StructuredMetadataDropStage),
    /// Makes a text of extracted values with a template.
    Template(TemplateStage),
    /// Sets the tenant that the entry is sent for.
    Tenant(TenantStage),
    /// Takes the time of the entry from an extracted value.
    Timestamp(TimestampStage),
    /// Cuts what is too long.
    Truncate(TruncateStage),
    /// Extracts the values of a message of the Windows event log, section by section.
    #[block(name = "windowsevent")]
    WindowsEvent(WindowsEventStage),
}

impl Build for StageConfig {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        match self {
            StageConfig::Cri(stage) => stage.build(cx),
            StageConfig::Decolorize(stage) => stage.build(cx),
            StageConfig::Docker(stage) => stage.build(cx),
            StageConfig::Drop(stage) => stage.build(cx),
            StageConfig::EventLogMessage(stage) => stage.build(cx),
            StageConfig::GeoIp(stage) => stage.build(cx),
            StageConfig::Json(stage) => stage.build(cx),
            StageConfig::LabelDrop(stage) => stage.build(cx),
            StageConfig::LabelKeep(stage) => stage.build(cx),
            StageConfig::Labels(stage) => stage.build(cx),
            StageConfig::Limit(stage) => stage.build(cx),
            StageConfig::Logfmt(stage) => stage.build(cx),
            StageConfig::Luhn(stage) => stage.build(cx),
            StageConfig::Match(stage) => stage.build(cx),
            StageConfig::Metrics(stage) => stage.build(cx),
            StageConfig::Multiline(stage) => stage.build(cx),
            StageConfig::Output(stage) => stage.build(cx),
            StageConfig::Pack(stage) => stage.build(cx),
            StageConfig::Pattern(stage) => stage.build(cx),
            StageConfig::Regex(stage) => stage.build(cx),
            StageConfig::Replace(stage) => stage.build(cx),
            StageConfig::Sampling(stage) => stage.build(cx),
            StageConfig::SplitJson(stage) => stage.build(cx),
            StageConfig::StaticLabels(stage) => stage.build(cx),
            StageConfig::StructuredMetadata(stage) => stage.build(cx),
            StageConfig::StructuredMetadataDrop(stage) => stage.build(cx),
            StageConfig::Template(stage) => stage.build(cx),
            StageConfig::Tenant(stage) => stage.build(cx),
            StageConfig::Timestamp(stage) => stage.build(cx),
            StageConfig::Truncate(stage) => stage.build(cx),
            StageConfig::WindowsEvent(stage) => stage.build(cx),
        }
    }
}

impl StageConfig {
    /// The stages within a stage, which entries pass that it [keeps](super::stage::Next::Keep).
    pub(super) fn nested(&self) -> Option<&[StageConfig]> {
        match self {
            StageConfig::Match(stage) => Some(stage.stages()),
            _ => None,
        }
    }
}
