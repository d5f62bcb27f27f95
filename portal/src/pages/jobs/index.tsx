import { useParams } from "wouter";
import { OneJob } from "./job";
import { JobList } from "./list";

export default function JobsPage() {
  const { id } = useParams<{ id?: string }>();
  return id ? <OneJob key={id} id={id} /> : <JobList />;
}
