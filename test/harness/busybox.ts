/**
 * A small root file system made from the host's static busybox, as a tar for `docker import`.
 * Made once a machine and user; the name carries the size and time of the binary it came from.
 */
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './processes.ts';

const BUSYBOX = '/bin/busybox';

/** Path of the tar. */
export async function busyboxTar(): Promise<string> {
  const about = statSync(BUSYBOX);
  const file = join(
    tmpdir(),
    `gantry-busybox-${process.getuid?.() ?? 0}-${about.size}-${Math.round(about.mtimeMs)}.tar`,
  );
  if (existsSync(file)) return file;
  const work = mkdtempSync(join(tmpdir(), 'gantry-busybox-'));
  try {
    await fillRoot(join(work, 'root'));
    const packed = join(work, 'root.tar');
    const tar = await run('tar', [
      '-C',
      join(work, 'root'),
      '--owner=0',
      '--group=0',
      '--mtime=@0',
      '-cf',
      packed,
      '.',
    ]);
    if (tar.code !== 0) throw new Error(`tar failed: ${tar.stderr}`);
    renameSync(packed, file);
    return file;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

async function fillRoot(root: string): Promise<void> {
  for (const name of ['bin', 'dev', 'etc', 'home', 'proc', 'root', 'sys', 'usr', 'var']) {
    mkdirSync(join(root, name), { recursive: true });
  }
  mkdirSync(join(root, 'tmp'), { mode: 0o1777 });
  await copyFile(BUSYBOX, join(root, 'bin/busybox'));
  const listed = await run(BUSYBOX, ['--list']);
  for (const applet of listed.stdout.split('\n')) {
    if (applet !== '' && applet !== 'busybox') symlinkSync('busybox', join(root, 'bin', applet));
  }
  writeFileSync(
    join(root, 'etc/passwd'),
    'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n',
  );
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nnobody:x:65534:\nextra:x:1234:nobody\n');
}
