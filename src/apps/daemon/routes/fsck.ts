/** `POST /gantry/system/fsck`: a check of the store, told as JSON lines. */

import type { FsckContext } from '#engine/system/fsck/finding.ts';
import { checkStore } from '#engine/system/fsck.ts';
import type { Route } from '../http/route.ts';
import { streaming } from './images.ts';

/** The route. Lines are `{"finding":…}`, the last one `{"summary":…}`, or docker's error line. */
export function fsckRoutes(fsck: FsckContext): Route[] {
  return [
    {
      method: 'POST',
      path: '/gantry/system/fsck',
      handler: async (context) => {
        const { query, signal } = context;
        const options = { deep: query.flag('deep'), repair: query.flag('repair'), drop: query.flag('drop') };
        await streaming(context, async (write) => {
          const summary = await checkStore(fsck, options, (finding) => write({ finding }), signal);
          await write({ summary });
        });
      },
    },
  ];
}
