//! Batches whose entries go to other streams.

use corten_signal::{EntriesBuilder, LogsBatch, Stream};

/// The batch with each of its parts in another stream, or without it. The lines stay where they are. Where nothing
/// changes it is the batch itself.
pub(crate) fn restream<D>(batch: LogsBatch, streams: &[Result<Stream, D>]) -> LogsBatch {
    let entries = &batch.entries;
    if streams.iter().zip(entries.parts()).all(|(after, (before, _))| after.as_ref().is_ok_and(|after| after == before))
    {
        return batch;
    }
    let mut builder = EntriesBuilder::new();
    let sharing = builder.share_text(entries.text());
    for (stream, (_, list)) in streams.iter().zip(entries.parts()) {
        let Ok(stream) = stream else { continue };
        let part = builder.stream(stream);
        list.iter().for_each(|entry| builder.push_entry(part, entries, &sharing, entry));
    }
    let entries = builder.finish(batch.entries.created_ms());
    batch.with(entries)
}
