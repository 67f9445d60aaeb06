// A codestream: one compressed image, with a size, depth and coding of its own, whatever the DICOM header around it states.
// As pleura.dicom.codestream.
//
// Exports: CodestreamError, SeveralFramesError, beginsWith, refuseSurplus.

/** A codestream that is cut short, damaged, or holds what no radiograph does; the message is the reason. */
export class CodestreamError extends Error {}

/** A second codestream follows the first. */
export class SeveralFramesError extends CodestreamError {}

/** Whether bytes begin with those of `start`, an array. */
export const beginsWith = (data, start) => start.every((byte, at) => data[at] === byte);

/** Refuse what follows the end of a codestream but for padding: zeros, or one byte of any value. start: how a
 *  codestream begins. Source: DICOM PS3.5 A.4. */
export function refuseSurplus(rest, start) {
  const from = rest.findIndex(Boolean), inside = from === -1 ? [] : rest.subarray(from, rest.findLastIndex(Boolean) + 1);
  if (beginsWith(inside, start)) throw new SeveralFramesError();
  if (inside.length > 1) throw new CodestreamError(`${inside.length} bytes follow the end of its pixels`);
}
