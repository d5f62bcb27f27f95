import { useFormat } from "./format";

/** A time as how long ago it was; the whole of it on hovering. */
export function When({ seconds }: { seconds: number }) {
  const format = useFormat();
  return (
    <time dateTime={new Date(seconds * 1000).toISOString()} title={format.time(seconds)}>
      {format.ago(seconds)}
    </time>
  );
}
