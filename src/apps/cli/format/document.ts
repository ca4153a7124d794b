/** `--format` of commands that print one document (`version`, `info`): JSON or a template. */
import { ExitError } from '../args/usage-error.ts';
import type { Session } from '../session.ts';
import { Template } from '../template/execute.ts';
import { TemplateError } from '../template/lexer.ts';
import { goJson, type StructView } from '../template/values.ts';

/** Compat: the code of a template that does not parse. */
const TEMPLATE_ERROR_CODE = 64;

/** Prints a document; `name` is what template errors call the template. */
export function printFormatted(
  session: Session,
  format: string,
  document: { readonly data: StructView; readonly name: string },
): void {
  if (format === 'json') {
    session.print(`${goJson(document.data)}\n`);
    return;
  }
  let template: Template;
  try {
    template = new Template(format, { name: document.name });
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    throw new ExitError(TEMPLATE_ERROR_CODE, `template parsing error: ${error.message}\n`);
  }
  try {
    session.print(`${template.execute(document.data, { missingKey: 'error' })}\n`);
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    session.print(`${error.partialOutput}\n`);
    throw new ExitError(1, `${error.message}\n`);
  }
}
