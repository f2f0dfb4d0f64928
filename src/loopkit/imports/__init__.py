"""What others recorded: exports of Langfuse, LangSmith, PromptLayer and TruLens, read into spans and feedback."""
