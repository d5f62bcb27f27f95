// From the choices to a job: the files first, then the job, each made once however often one presses.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";
import { useLocation } from "wouter";
import { get, path, post } from "../../api/http";
import type { FineTuningJob, List, Selection } from "../../api/types";
import { type Choices, methodOf, selectionOf } from "./choices";

const JOBS = "/v1/fine_tuning/jobs";
/** The server's clock and ours may differ by as much. */
const CLOCKS_APART_SECONDS = 120;
const NEWEST = 20;

export interface Files {
  training: string;
  validation: string | null;
  /** Whether they were made here, for this job. */
  made: boolean;
}

/** What is under way, or how far it came before it failed. */
export interface Progress {
  /** The rows that the files were made of, so that changed choices make new ones. */
  rows: string;
  files: Files | null;
  /** When the job was first asked for; null before. */
  asked: number | null;
}

export function useStart(choices: Choices, rows: number, student: string | null) {
  const client = useQueryClient();
  const [, go] = useLocation();
  const progress = useRef<Progress | null>(null);
  // The second click of a double click comes before the button is drawn as busy.
  const isUnderWay = useRef(false);
  const starting = useMutation({
    mutationFn: async () => {
      const wanted = JSON.stringify([choices.source, selectionOf(choices, rows)]);
      if (progress.current?.rows !== wanted) progress.current = { rows: wanted, files: null, asked: null };
      const known = progress.current;
      known.files ??= await filesOf(choices, rows);
      const files = known.files;
      // An answer that was lost may have been a job.
      const before = known.asked === null ? null : await jobSince(known.asked, files, student);
      known.asked ??= Date.now() / 1000;
      return before ?? (await post<FineTuningJob>(JOBS, orderOf(choices, files, student)));
    },
    // After a success it stays under way: the page is left for the job's.
    onError: () => {
      isUnderWay.current = false;
    },
    onSuccess: (job) => {
      progress.current = null;
      for (const key of ["jobs", "files"]) client.invalidateQueries({ queryKey: [key] });
      go(`/jobs/${encodeURIComponent(job.id)}`);
    },
  });
  const start = () => {
    if (isUnderWay.current) return;
    isUnderWay.current = true;
    starting.mutate();
  };
  return { start, starting, files: () => progress.current?.files ?? null };
}

async function filesOf(choices: Choices, rows: number): Promise<Files> {
  const { source } = choices;
  if (source.kind === "file") return { training: source.file, validation: source.validation, made: false };
  const body = { ...selectionOf(choices, rows), ...(choices.suffix ? { filename: choices.suffix } : {}) };
  const made = await post<Selection>("/v1/stillroom/selections", body);
  return { training: made.training_file.id, validation: made.validation_file?.id ?? null, made: true };
}

async function jobSince(seconds: number, files: Files, student: string | null): Promise<FineTuningJob | null> {
  const newest = await get<List<FineTuningJob>>(path(JOBS, { limit: NEWEST }));
  const ours = (job: FineTuningJob) =>
    job.training_file === files.training &&
    job.model === student &&
    (files.made || job.created_at >= seconds - CLOCKS_APART_SECONDS);
  return newest.data.find(ours) ?? null;
}

function orderOf(choices: Choices, files: Files, student: string | null) {
  return {
    model: student,
    training_file: files.training,
    method: methodOf(choices),
    ...(files.validation ? { validation_file: files.validation } : {}),
    ...(choices.suffix ? { suffix: choices.suffix } : {}),
    ...(choices.jobSeed ? { seed: Number(choices.jobSeed) } : {}),
  };
}
