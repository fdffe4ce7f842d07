"""Pure: what a record is allowed to look like, who it is about, and the formats it comes in."""
