/** What this engine calls itself, and the API it speaks. */
export const ENGINE_VERSION = '0.1.0';
export const API_VERSION = '1.51';
export const MIN_API_VERSION = '1.24';
