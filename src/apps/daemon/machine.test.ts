import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultSeccomp } from '#services/spec/seccomp.ts';
import { absentArchitectures } from './machine.ts';

test('an ABI is absent only when the kernel configuration says so', () => {
  assert.deepEqual(absentArchitectures('# CONFIG_X86_X32_ABI is not set\nCONFIG_IA32_EMULATION=y\n'), [
    'SCMP_ARCH_X32',
  ]);
  assert.deepEqual(absentArchitectures('CONFIG_X86_X32_ABI=y\nCONFIG_IA32_EMULATION=y\n'), []);
  assert.deepEqual(absentArchitectures(''), []);
});

test('the built-in profile leaves absent ABIs out and keeps its rules', () => {
  const target = { architecture: 'amd64', kernelRelease: '6.18.0', capabilities: [] };
  const whole = defaultSeccomp(target);
  const reduced = defaultSeccomp({ ...target, absentArchitectures: ['SCMP_ARCH_X32'] });
  assert.deepEqual(whole?.architectures, ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32']);
  assert.deepEqual(reduced?.architectures, ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86']);
  assert.deepEqual(reduced?.syscalls, whole?.syscalls);
});
