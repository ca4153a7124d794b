/** The text of `gantryd --help`, laid out as pflag does. */
import { FLAGS, type FlagSpec, type FlagType } from './flag-table.ts';

const TYPE_NAMES: Readonly<Record<FlagType, string>> = {
  string: 'string',
  bool: '',
  int: 'int',
  bytes: 'bytes',
  list: 'list',
  map: 'map',
  mapOfMaps: 'mapmap',
  ulimits: 'ulimit',
  runtimes: 'runtime',
  pools: 'pool-options',
  switches: 'set',
};

function defaultText(spec: FlagSpec): string {
  if (typeof spec.initial === 'string' && spec.initial !== '') return ` (default "${spec.initial}")`;
  if (typeof spec.initial === 'number' && spec.initial !== 0) return ` (default ${spec.initial})`;
  return spec.initial === true ? ' (default true)' : '';
}

/** The whole help text. */
export function helpText(): string {
  const rows = FLAGS.filter((spec) => !spec.isHidden).map((spec) => {
    const short = spec.short === undefined ? '    ' : `-${spec.short}, `;
    return {
      left: `  ${short}--${spec.name} ${TYPE_NAMES[spec.type]}`.trimEnd(),
      right: `${spec.usage}${defaultText(spec)}`,
    };
  });
  const width = Math.max(...rows.map((row) => row.left.length));
  const lines = rows.map((row) => `${row.left.padEnd(width)}   ${row.right}`);
  return `Usage:  gantryd [OPTIONS]\n\nA self-sufficient runtime for containers.\n\nOptions:\n${lines.join('\n')}\n`;
}
