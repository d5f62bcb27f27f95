// Evals: the list, one eval with its report, one run with what it found. The address says which.

import { useParams } from "wouter";
import { EvalPage } from "./eval_page";
import { EvalList } from "./list";
import { RunPage } from "./run_page";

export default function EvalsPage() {
  const { id, run } = useParams<{ id?: string; run?: string }>();
  if (id && run) return <RunPage evalId={id} runId={run} />;
  return id ? <EvalPage id={id} /> : <EvalList />;
}
