/** The failure of a build step that ran. */
import { GantryError } from '#types/errors.ts';

/** A failed RUN; its code goes into errorDetail. */
export class BuildStepError extends GantryError {
  readonly code: number;

  constructor(message: string, code: number) {
    super('system', message);
    this.code = code;
  }
}
