// What happened, newest first. The steps, one event each, are folded away.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo } from "react";
import type { Job, JobEvent } from "../../api/types";
import { useText } from "../../i18n";
import { Badge, Button, ErrorNote, type Tone, useFormat, Waiting } from "../../ui";
import { type Events, folded, newer, older, stepOf } from "./events";
import styles from "./jobs.module.css";
import { isUnderWay } from "./state";

const LOOK_MS = 2000;
const TONES: Record<JobEvent["level"], Tone> = { info: "plain", warn: "warn", error: "bad" };

export function EventList({ one: { job } }: { one: Job }) {
  const t = useText();
  const client = useQueryClient();
  const queryKey = ["job-events", job.id];
  const events = useQuery({
    queryKey,
    queryFn: ({ signal }) => newer(job.id, client.getQueryData<Events>(queryKey), signal),
    structuralSharing: false,
    refetchInterval: isUnderWay(job) ? LOOK_MS : false,
  });
  const more = useMutation({
    mutationFn: (known: Events) => older(job.id, known),
    onSuccess: (all) => client.setQueryData(queryKey, all),
  });
  const lines = useMemo(() => folded(events.data?.data ?? []), [events.data]);
  return (
    <section className="card stack" aria-labelledby="events">
      <h2 id="events">{t("jobs.events")}</h2>
      {events.isPending && <Waiting />}
      {events.error && !events.data && <ErrorNote error={events.error} onRetry={events.refetch} />}
      <ol className={styles.events}>
        {lines.map((line) =>
          line.kind === "event" ? (
            <li key={line.event.id}>
              <Told event={line.event} />
            </li>
          ) : (
            <li key={line.events.at(-1)?.id}>
              <Steps events={line.events} />
            </li>
          ),
        )}
      </ol>
      {events.data?.has_more && (
        <div>
          <Button busy={more.isPending} onClick={() => events.data && more.mutate(events.data)}>
            {t("common.older")}
          </Button>
        </div>
      )}
      {more.error && <ErrorNote error={more.error} />}
    </section>
  );
}

function Told({ event }: { event: JobEvent }) {
  const t = useText();
  const { time } = useFormat();
  return (
    <div className={styles.event}>
      <time className="small quiet number" dateTime={new Date(event.created_at * 1000).toISOString()}>
        {time(event.created_at)}
      </time>
      <span className="said">
        {event.level !== "info" && <Badge tone={TONES[event.level]}>{t(`jobs.level_${event.level}`)}</Badge>}{" "}
        {event.message}
      </span>
    </div>
  );
}

function Steps({ events }: { events: JobEvent[] }) {
  const t = useText();
  const newest = events[0];
  const [from, to] = [stepOf(events.at(-1)), stepOf(newest)];
  return (
    <details>
      <summary className="quiet">
        {from === null || to === null
          ? t("jobs.steps_folded", { count: events.length })
          : t("jobs.steps_folded_from", { count: events.length, from, to })}
      </summary>
      <ol className={styles.events}>
        {events.map((event) => (
          <li key={event.id}>
            <Told event={event} />
          </li>
        ))}
      </ol>
    </details>
  );
}
