/** The fake runtime passes the suite of the real one. */
import { randomBytes } from 'node:crypto';
import { describe } from 'node:test';
import { FakeShimLauncher } from '#system/runtime/fake.ts';
import { runtimeSuite } from './runtime-suite.ts';

describe('the fake runtime', () => {
  const quick = new Set<string>();
  const launcher = new FakeShimLauncher({ onStart: (id) => (quick.has(id) ? 7 : undefined) });
  runtimeSuite({
    launcher: () => launcher,
    task: async (kind) => {
      const id = randomBytes(8).toString('hex');
      if (kind === 'quick') quick.add(id);
      const shim = await launcher.start({
        id,
        namespace: 'test',
        bundle: '/nowhere',
        shim: 'io.containerd.runc.v2',
        debug: false,
      });
      const stdio = { stdin: '', stdout: '', stderr: '', terminal: false };
      await shim.create({ id, bundle: '/nowhere', stdio, runc: {} });
      return { id, shim };
    },
  });
});
