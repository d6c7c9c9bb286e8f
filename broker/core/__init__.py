"""The core: what any protocol needs to publish, consume and declare, without naming one."""
