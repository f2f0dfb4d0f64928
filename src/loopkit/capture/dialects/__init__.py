"""Provider dialects: pure translation between an SDK's shapes and ours. No spans, no threads, no await."""
