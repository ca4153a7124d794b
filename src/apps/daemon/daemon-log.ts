/** The daemon's own log on stderr, in dockerd's logfmt form. Values are quoted; nothing secret is ever passed here. */
import type { Logger } from '#engine/services.ts';
import { now } from '#system/clock/clock.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'fatal';

const ORDER: readonly LogLevel[] = ['debug', 'info', 'warn', 'error', 'fatal'];

/** A logger whose level may change on reload. */
export class DaemonLog implements Logger {
  level: LogLevel;
  readonly #write: (line: string) => void;

  constructor(level: LogLevel, write: (line: string) => void = (line) => void process.stderr.write(line)) {
    this.level = level;
    this.#write = write;
  }

  debug(message: string, fields?: Readonly<Record<string, string | number>>): void {
    this.#log('debug', message, fields);
  }

  info(message: string, fields?: Readonly<Record<string, string | number>>): void {
    this.#log('info', message, fields);
  }

  warn(message: string, fields?: Readonly<Record<string, string | number>>): void {
    this.#log('warn', message, fields);
  }

  error(message: string, fields?: Readonly<Record<string, string | number>>): void {
    this.#log('error', message, fields);
  }

  #log(level: LogLevel, message: string, fields: Readonly<Record<string, string | number>> = {}): void {
    if (ORDER.indexOf(level) < ORDER.indexOf(this.level)) return;
    const extra = Object.entries(fields)
      .map(([key, value]) => ` ${key}=${quote(String(value))}`)
      .join('');
    this.#write(`time=${quote(now())} level=${level === 'warn' ? 'warning' : level} msg=${quote(message)}${extra}\n`);
  }
}

function quote(text: string): string {
  return /^[\w.:/@-]+$/.test(text) ? text : JSON.stringify(text);
}

/** Logs what nobody caught, with its stack, instead of ending the process. */
export function surviveBugs(): void {
  process.on('uncaughtException', (error) => {
    process.stderr.write(
      `level=error msg="uncaught exception" error=${JSON.stringify(error.stack ?? String(error))}\n`,
    );
  });
  process.on('unhandledRejection', (reason) => {
    const text = reason instanceof Error ? (reason.stack ?? reason.message) : String(reason);
    process.stderr.write(`level=error msg="unhandled rejection" error=${JSON.stringify(text)}\n`);
  });
}
