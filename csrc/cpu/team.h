// The threads that help a call.
#pragma once

namespace fastconv::cpu {

// Calls work(context, thread) as thread 0, and lets those of the threads 1 ... team - 1 that come before it has returned
// call it, too; returns when all that came have returned. The work must be one that whoever is there divides among them,
// down to the caller alone: nobody waits for a thread that is asleep or that the system keeps from running.
void run_in_team(int team, void (*work)(void* context, int thread), void* context);

}  // namespace fastconv::cpu
