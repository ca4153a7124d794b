/** `POST /gantry/system/fsck`: a check of the store, told as JSON lines. */

import type { FsckContext } from '#engine/system/fsck/finding.ts';
import { checkStore } from '#engine/system/fsck.ts';
import { registryConfig } from '../http/credentials.ts';
import type { Route } from '../http/route.ts';
import { streaming } from './images.ts';

/** The route. Lines are `{"finding":…}`, the last one `{"summary":…}`, or docker's error line. */
export function fsckRoutes(fsck: Omit<FsckContext, 'credentials'>): Route[] {
  return [
    {
      method: 'POST',
      path: '/gantry/system/fsck',
      handler: async (context) => {
        const { query, signal } = context;
        const options = { deep: query.flag('deep'), repair: query.flag('repair'), drop: query.flag('drop') };
        const credentials = registryConfig(context.request);
        await streaming(context, async (write) => {
          const summary = await checkStore(
            { ...fsck, credentials },
            options,
            (finding: object) => write({ finding }),
            signal,
          );
          await write({ summary });
        });
      },
    },
  ];
}
