"""The long acceptance: `make safety TIME=3600 SEEDS=2000`; its table goes into docs/safety.md."""
