"""Tests of fluffle; a package of its own name, for distributions exist that install another."""
