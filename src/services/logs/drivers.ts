/**
 * The log drivers of a daemon: `json-file`, `local` and `none`.
 *
 * Invariant: at most one writer a log; readers find it here and follow it. `mode=non-blocking` needs no
 * buffer of ours: the file drivers never make a process wait but for the compression of a rotated file.
 */
import { join } from 'node:path';
import type { OutputStream } from '#services/streams/contract.ts';
import { GantryError } from '#types/errors.ts';
import { extraAttributes } from './attributes.ts';
import type { LogDrivers, LogInfo, LogReadOptions, LogRecord, LogWriter } from './contract.ts';
import type { EntryFormat } from './entry-format.ts';
import { entryTimeNow } from './entry-time.ts';
import { JsonFormat } from './json-format.ts';
import { LineSplitter } from './line-splitter.ts';
import { LocalFormat } from './local-format.ts';
import { LogFile } from './log-file.ts';
import { jsonRetention, localRetention, parseSize, type Retention } from './options.ts';
import { type LogSource, readLog, readLogBatches } from './read-log.ts';

type Options = Readonly<Record<string, string>>;

const MODES = ['', 'blocking', 'non-blocking'];
const COMMON_OPTIONS = ['labels', 'labels-regex', 'env', 'env-regex', 'tag', 'max-size', 'max-file', 'compress'];
const BUILT_IN_OPTIONS = ['mode', 'max-buffer-size'];

interface FileDriver {
  unknownOption(name: string): string;
  retention(options: Options): Retention;
  format(attributes: Readonly<Record<string, string>>): EntryFormat;
  path(info: LogInfo): string;
}

const JSON_FILE: FileDriver = {
  unknownOption: (name) => `unknown log opt '${name}' for json-file log driver`,
  retention: jsonRetention,
  format: (attributes) => new JsonFormat(attributes),
  path: (info) => join(info.directory, `${info.containerId}-json.log`),
};

const LOCAL: FileDriver = {
  unknownOption: (name) => `unknown log opt '${name}' for log driver local`,
  retention: localRetention,
  format: (attributes) => new LocalFormat(attributes),
  path: (info) => join(info.directory, 'local-logs', 'container.log'),
};

const FILE_DRIVERS: ReadonlyMap<string, FileDriver> = new Map([
  ['json-file', JSON_FILE],
  ['local', LOCAL],
]);

/** The drivers of one daemon; `report` gets what went wrong with a log file. */
export class FileLogDrivers implements LogDrivers {
  readonly names: readonly string[] = ['json-file', 'local', 'none'];
  readonly #report: (text: string) => void;
  readonly #live = new Map<string, LogFile>();

  constructor(report: (text: string) => void) {
    this.#report = report;
  }

  validate(driver: string, options: Options): void {
    if (driver === 'none') return;
    const mode = options['mode'] ?? '';
    if (!MODES.includes(mode)) throw new GantryError('invalid', `logger: logging mode not supported: ${mode}`);
    const bufferSize = options['max-buffer-size'];
    if (bufferSize !== undefined) {
      if (mode !== 'non-blocking') {
        throw new GantryError('invalid', "logger: max-buffer-size option is only supported with 'mode=non-blocking'");
      }
      validateBufferSize(bufferSize);
    }
    const found = fileDriver(driver);
    for (const name of Object.keys(options)) {
      if (BUILT_IN_OPTIONS.includes(name) || COMMON_OPTIONS.includes(name)) continue;
      throw new GantryError('invalid', found.unknownOption(name));
    }
  }

  async open(info: LogInfo): Promise<LogWriter> {
    if (info.driver === 'none') return DISCARD;
    const driver = fileDriver(info.driver);
    const path = driver.path(info);
    const retention = driver.retention(info.options);
    const format = driver.format(extraAttributes(info));
    await this.#live.get(path)?.close();
    const file = await LogFile.open(path, format, { retention, report: this.#report });
    this.#live.set(path, file);
    return new FileLogWriter(file, format, () => {
      if (this.#live.get(path) === file) this.#live.delete(path);
    });
  }

  read(info: LogInfo, options: LogReadOptions, signal: AbortSignal): AsyncIterable<LogRecord> {
    return readLog(this.#source(info), options, signal);
  }

  readBatches(info: LogInfo, options: LogReadOptions, signal: AbortSignal): AsyncIterable<readonly LogRecord[]> {
    return readLogBatches(this.#source(info), options, signal);
  }

  path(info: LogInfo): string {
    // Compat: docker's inspect names the file of json-file only.
    return info.driver === 'json-file' ? JSON_FILE.path(info) : '';
  }

  #source(info: LogInfo): LogSource {
    if (info.driver === 'none') {
      throw new GantryError('notImplemented', 'configured logging driver does not support reading');
    }
    const driver = fileDriver(info.driver);
    const path = driver.path(info);
    return { path, format: driver.format({}), live: this.#live.get(path) };
  }
}

function fileDriver(name: string): FileDriver {
  const driver = FILE_DRIVERS.get(name);
  if (driver !== undefined) return driver;
  throw new GantryError('invalid', `error looking up logging plugin ${name}: plugin "${name}" not found`);
}

function validateBufferSize(text: string): void {
  try {
    parseSize(text, 1024);
  } catch (error) {
    throw new GantryError('invalid', `error parsing option max-buffer-size: ${(error as Error).message}`);
  }
}

const DISCARD: LogWriter = {
  write: () => undefined,
  end: async () => {},
};

class FileLogWriter implements LogWriter {
  readonly #file: LogFile;
  readonly #format: EntryFormat;
  readonly #onEnd: () => void;
  readonly #splitters: Record<OutputStream, LineSplitter>;
  #busy: Promise<void> | undefined;
  #isEnded = false;

  constructor(file: LogFile, format: EntryFormat, onEnd: () => void) {
    this.#file = file;
    this.#format = format;
    this.#onEnd = onEnd;
    this.#splitters = { stdout: this.#splitter('stdout'), stderr: this.#splitter('stderr') };
  }

  write(stream: OutputStream, chunk: Buffer): Promise<void> | undefined {
    this.#busy = undefined;
    this.#splitters[stream].push(chunk);
    return this.#busy;
  }

  async end(): Promise<void> {
    if (this.#isEnded) return;
    this.#isEnded = true;
    for (const splitter of Object.values(this.#splitters)) splitter.end();
    await this.#file.close();
    this.#onEnd();
  }

  #splitter(stream: OutputStream): LineSplitter {
    const append = (encoded: Buffer): void => {
      this.#busy = this.#file.append(encoded) ?? this.#busy;
    };
    return new LineSplitter(
      {
        lines: (block, time) => append(this.#format.encodeLines(stream, block, time)),
        part: (content, time, part) => append(this.#format.encodePart(stream, content, time, part)),
      },
      entryTimeNow,
    );
  }
}
