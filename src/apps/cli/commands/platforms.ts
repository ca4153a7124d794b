/** `--platform` values as the API takes them: an OCI platform in JSON. */
import { parsePlatform } from '#types/platform.ts';
import { ExitError } from '../args/usage-error.ts';
import type { Session } from '../session.ts';

/** An OCI platform object; throws docker's text. */
export function platformJson(text: string): string {
  const { os, architecture, variant } = parsePlatform(text);
  return JSON.stringify({ architecture, os, ...(variant === undefined ? {} : { variant }) });
}

/** Every `--platform` of a command; values may be joined by commas. */
export function platformsOf(session: Session): string[] {
  const texts = session.flags.list('platform').flatMap((value) => value.split(','));
  return texts
    .filter((text) => text !== '')
    .map((text) => {
      try {
        return platformJson(text);
      } catch (error) {
        throw new ExitError(1, `invalid platform: ${(error as Error).message}\n`);
      }
    });
}
