/** What this CLI calls itself, in `gantry version` and to daemons; the engine keeps a version of its own. */
export const CLI_VERSION = '0.1.0';
