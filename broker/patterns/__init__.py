"""Regular expressions that are matched in bounded time, for permissions and policies."""
