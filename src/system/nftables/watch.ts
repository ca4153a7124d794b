/**
 * Tells when somebody deletes parts of an nftables table: the kernel's notifications (nfnetlink group NFTABLES),
 * read without waiting once a second. Own changes of elements are not deletions of parts; after replacing the
 * table oneself, `forget` drops what that caused.
 */
import { hasCode } from '#system/kernel/errno.ts';
import {
  AF_NETLINK,
  bindSocket,
  closeSocket,
  netlinkAddress,
  openSocket,
  receive,
  SOCK_NONBLOCK,
  SOCK_RAW,
} from '#system/kernel/socket.ts';
import { decodeAttributes, decodeMessages, NetlinkFormatError, readText } from '#system/netlink/message.ts';

const NETLINK_NETFILTER = 12;
const NFNLGRP_NFTABLES = 7;
const NFNL_SUBSYS_NFTABLES = 10;
/** NFT_MSG_DELTABLE, DELCHAIN, DELRULE, DELSET. */
const DELETIONS: ReadonlySet<number> = new Set([2, 5, 8, 11]);
/** In all of those messages attribute 1 names the table. */
const NFTA_TABLE_NAME = 1;
/** A call of a microsecond; rules are to be back within two seconds. */
const INTERVAL_MS = 1000;
const BUFFER_BYTES = 64 * 1024;
/** Datagrams read in one turn; what is left is read in the next. */
const DATAGRAMS_MAX = 1000;

/** A running watch. */
export interface TableWatch extends Disposable {
  /** Drops what has been told so far. */
  forget(): void;
}

/** Calls `onLoss` when parts of the table `inet name` were deleted, or when notifications were lost. */
export function watchTable(name: string, onLoss: () => void): TableWatch {
  const fd = openSocket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_NETFILTER);
  try {
    bindSocket(fd, netlinkAddress(0, 1 << (NFNLGRP_NFTABLES - 1)));
  } catch (error) {
    closeSocket(fd);
    throw error;
  }
  const buffer = Buffer.alloc(BUFFER_BYTES);
  const timer = setInterval(() => {
    if (drain(fd, buffer, name)) onLoss();
  }, INTERVAL_MS);
  timer.unref();
  return {
    forget: () => void drain(fd, buffer, name),
    [Symbol.dispose]() {
      clearInterval(timer);
      closeSocket(fd);
    },
  };
}

/** Reads what is there; whether it tells of a loss. */
function drain(fd: number, buffer: Buffer, name: string): boolean {
  let isLost = false;
  for (let count = 0; count < DATAGRAMS_MAX; count += 1) {
    try {
      const length = receive(fd, buffer);
      if (length === undefined) return isLost;
      isLost ||= tellsOfLoss(buffer.subarray(0, length), name);
    } catch (error) {
      // The queue overflowed: anything may have happened. Something that is no netlink message is no reason to stop.
      if (!hasCode(error, 'ENOBUFS') && !(error instanceof NetlinkFormatError)) throw error;
      isLost = true;
    }
  }
  return isLost;
}

/** Whether a datagram tells of a deletion in the table. */
export function tellsOfLoss(datagram: Buffer, name: string): boolean {
  return decodeMessages(datagram).some(
    ({ type, payload }) =>
      type >> 8 === NFNL_SUBSYS_NFTABLES &&
      DELETIONS.has(type & 0xff) &&
      payload.length > 4 &&
      readText(decodeAttributes(payload.subarray(4)).get(NFTA_TABLE_NAME)) === name,
  );
}
