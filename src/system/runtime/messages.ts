/**
 * Field tables of the messages spoken with shims: containerd's Task API (v2; v3 has the same fields),
 * its event envelope and the ttrpc envelope. Only fields this engine reads or writes are listed.
 */
import type { FieldTable } from './protobuf.ts';

export interface Timestamp {
  readonly seconds: bigint;
  readonly nanos: number;
}

export interface Any {
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

export const TIMESTAMP: FieldTable = {
  seconds: { number: 1, kind: 'int64' },
  nanos: { number: 2, kind: 'uint32' },
};

export const ANY: FieldTable = {
  typeUrl: { number: 1, kind: 'string' },
  value: { number: 2, kind: 'bytes' },
};

export const EMPTY: FieldTable = {};

export const KEY_VALUE: FieldTable = {
  key: { number: 1, kind: 'string' },
  value: { number: 2, kind: 'string' },
};

export interface RpcRequest {
  readonly service: string;
  readonly method: string;
  readonly payload: Uint8Array;
  readonly timeoutNano?: bigint;
  readonly metadata?: readonly { readonly key: string; readonly value: string }[];
}

export const RPC_REQUEST: FieldTable = {
  service: { number: 1, kind: 'string' },
  method: { number: 2, kind: 'string' },
  payload: { number: 3, kind: 'bytes' },
  timeoutNano: { number: 4, kind: 'int64' },
  metadata: { number: 5, kind: { message: KEY_VALUE }, repeated: true },
};

export interface RpcStatus {
  readonly code: number;
  readonly message: string;
}

export const RPC_STATUS: FieldTable = {
  code: { number: 1, kind: 'uint32' },
  message: { number: 2, kind: 'string' },
};

export interface RpcResponse {
  readonly status: RpcStatus | undefined;
  readonly payload: Buffer;
}

export const RPC_RESPONSE: FieldTable = {
  status: { number: 1, kind: { message: RPC_STATUS } },
  payload: { number: 2, kind: 'bytes' },
};

export const CREATE_TASK_REQUEST: FieldTable = {
  id: { number: 1, kind: 'string' },
  bundle: { number: 2, kind: 'string' },
  terminal: { number: 4, kind: 'bool' },
  stdin: { number: 5, kind: 'string' },
  stdout: { number: 6, kind: 'string' },
  stderr: { number: 7, kind: 'string' },
  options: { number: 10, kind: { message: ANY } },
};

/** Any request that names a process: State, Start, Delete, Wait, Pause, Resume, Pids, Connect. */
export const PROCESS_REQUEST: FieldTable = {
  id: { number: 1, kind: 'string' },
  execId: { number: 2, kind: 'string' },
};

/** CreateTaskResponse and StartResponse. */
export const PID_RESPONSE: FieldTable = { pid: { number: 1, kind: 'uint32' } };

export const EXEC_REQUEST: FieldTable = {
  id: { number: 1, kind: 'string' },
  execId: { number: 2, kind: 'string' },
  terminal: { number: 3, kind: 'bool' },
  stdin: { number: 4, kind: 'string' },
  stdout: { number: 5, kind: 'string' },
  stderr: { number: 6, kind: 'string' },
  spec: { number: 7, kind: { message: ANY } },
};

export const DELETE_RESPONSE: FieldTable = {
  pid: { number: 1, kind: 'uint32' },
  exitStatus: { number: 2, kind: 'uint32' },
  exitedAt: { number: 3, kind: { message: TIMESTAMP } },
};

export const WAIT_RESPONSE: FieldTable = {
  exitStatus: { number: 1, kind: 'uint32' },
  exitedAt: { number: 2, kind: { message: TIMESTAMP } },
};

export interface ExitFields {
  readonly exitStatus: number;
  readonly exitedAt: Timestamp | undefined;
}

export interface StateResponse extends ExitFields {
  readonly pid: number;
  readonly status: number;
}

export const STATE_RESPONSE: FieldTable = {
  pid: { number: 3, kind: 'uint32' },
  status: { number: 4, kind: 'uint32' },
  exitStatus: { number: 9, kind: 'uint32' },
  exitedAt: { number: 10, kind: { message: TIMESTAMP } },
};

export const KILL_REQUEST: FieldTable = {
  id: { number: 1, kind: 'string' },
  execId: { number: 2, kind: 'string' },
  signal: { number: 3, kind: 'uint32' },
  all: { number: 4, kind: 'bool' },
};

export const RESIZE_REQUEST: FieldTable = {
  id: { number: 1, kind: 'string' },
  execId: { number: 2, kind: 'string' },
  width: { number: 3, kind: 'uint32' },
  height: { number: 4, kind: 'uint32' },
};

export const CLOSE_IO_REQUEST: FieldTable = {
  id: { number: 1, kind: 'string' },
  execId: { number: 2, kind: 'string' },
  stdin: { number: 3, kind: 'bool' },
};

export const UPDATE_REQUEST: FieldTable = {
  id: { number: 1, kind: 'string' },
  resources: { number: 2, kind: { message: ANY } },
};

export const PIDS_RESPONSE: FieldTable = {
  processes: { number: 1, kind: { message: { pid: { number: 1, kind: 'uint32' } } }, repeated: true },
};

export const CONNECT_RESPONSE: FieldTable = {
  shimPid: { number: 1, kind: 'uint32' },
  taskPid: { number: 2, kind: 'uint32' },
};

export const SHUTDOWN_REQUEST: FieldTable = {
  id: { number: 1, kind: 'string' },
  now: { number: 2, kind: 'bool' },
};

/** containerd.runc.v1.Options. */
export const RUNC_OPTIONS: FieldTable = {
  noNewKeyring: { number: 2, kind: 'bool' },
  binaryName: { number: 6, kind: 'string' },
  root: { number: 7, kind: 'string' },
  systemdCgroup: { number: 9, kind: 'bool' },
};

/** What a shim of containerd 2.3 and later prints at start. */
export const BOOTSTRAP_RESULT: FieldTable = {
  version: { number: 1, kind: 'uint32' },
  address: { number: 2, kind: 'string' },
  protocol: { number: 3, kind: 'string' },
};

export const FORWARD_REQUEST: FieldTable = {
  envelope: {
    number: 1,
    kind: {
      message: {
        namespace: { number: 2, kind: 'string' },
        topic: { number: 3, kind: 'string' },
        event: { number: 4, kind: { message: ANY } },
      },
    },
  },
};

export interface TaskExitEvent extends ExitFields {
  readonly containerId: string;
  readonly id: string;
  readonly pid: number;
}

export const TASK_EXIT: FieldTable = {
  containerId: { number: 1, kind: 'string' },
  id: { number: 2, kind: 'string' },
  pid: { number: 3, kind: 'uint32' },
  exitStatus: { number: 4, kind: 'uint32' },
  exitedAt: { number: 5, kind: { message: TIMESTAMP } },
};

export const TASK_OOM: FieldTable = { containerId: { number: 1, kind: 'string' } };

const NO_TIME = '0001-01-01T00:00:00Z';

/** RFC 3339 with nanoseconds, trailing zeros dropped as Go's RFC3339Nano does. */
export function formatTimestamp(time: Timestamp | undefined): string {
  if (time === undefined || time.seconds <= 0n) return NO_TIME;
  const whole = new Date(Number(time.seconds) * 1000).toISOString().slice(0, 19);
  const fraction = String(time.nanos).padStart(9, '0').replace(/0+$/, '');
  return fraction === '' ? `${whole}Z` : `${whole}.${fraction}Z`;
}
